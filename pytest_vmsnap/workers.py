"""pytest-xdist: what a worker sends to its controller during the run, and what the controller does with it.

xdist's own channel only carries a fixed set of events, so the plugin opens another execnet channel and passes
it to the worker in ``workerinput``. What is sent on it arrives before what xdist sends later.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap import selection
from pytest_vmsnap.errors import HostError
from pytest_vmsnap.host import choose_uri, default_store, sweep
from pytest_vmsnap.session import packed, unpacked
from pytest_vmsnap.store import LockOwner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vmsnap.model import Settings
    from pytest_vmsnap.session import Record, Timings
    from pytest_vmsnap.terminal import Terminal

CHANNEL, SINCE = "vmsnap_channel", "vmsnap_since"  # keys in a worker's workerinput

WORKER_KEY = pytest.StashKey["Worker"]()


class Worker:
    """This process if it is an xdist worker; sends to the controller, if the plugin is active there."""

    def __init__(self, config: pytest.Config) -> None:
        given: dict[str, Any] = config.workerinput  # type: ignore[attr-defined] # xdist's
        self._channel = given.pop(CHANNEL, None)  # removed, so that other plugins only find plain data
        self._workers: int = given["workercount"]
        since = given.pop(SINCE, None) or time.time()
        self.lock_owner = LockOwner(worker=given["workerid"], run=given["testrunuid"], since=since)

    def say(self, line: str) -> None:
        """Send a line for the user."""
        self._send("line", line)

    def send_header(self, lines: Sequence[str]) -> None:
        """Send lines for the header; the controller shows those of one worker."""
        self._send("header", list(lines))

    def record(self, record: Record) -> None:
        """Send a record for the figures of the run."""
        self._send("record", packed(record))

    @pytest.hookimpl(tryfirst=True)  # before xdist sends the collected tests
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if getattr(session.config.option, "loadgroup", False):
            groups = selection.grouped(session.items, workers=self._workers)
            for item in session.items:
                if item.nodeid in groups and not item.get_closest_marker("xdist_group"):
                    item.add_marker(pytest.mark.xdist_group(groups[item.nodeid]))
            self._send("groups", groups)

    def _send(self, kind: str, content: object) -> None:
        if self._channel:
            with suppress(OSError):  # the controller has ended
                self._channel.send((kind, content))


class Controller:
    """The process that distributes the tests: it shows the lines and records of its workers."""

    def __init__(self, settings: Settings, terminal: Terminal, timings: Timings) -> None:
        self._settings = settings
        self._terminal = terminal
        self._timings = timings
        self._since = time.time()
        self._is_headed = False
        self._has_machines = False
        self._groups: dict[str, str] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        channel = node.gateway.newchannel()
        node.workerinput |= {CHANNEL: channel, SINCE: self._since}
        channel.setcallback(lambda message: self._hear(node.gateway.id, *message))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        return _scheduler(config, log, self._groups) if config.getoption("dist") == "loadgroup" else None

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, error: object) -> None:
        if error:
            self._sweep()

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        self._sweep()  # xdist kills a worker that does not end in time

    def _hear(self, worker: str, kind: str, content: Any) -> None:
        """Handle a message of a worker; called in execnet's receiver thread."""
        self._has_machines = self._has_machines or kind != "groups"
        match kind:
            case "line":
                self._terminal.write(f"[{worker}] {content}")
            case "header" if not self._is_headed:
                self._is_headed = True
                for line in content:
                    self._terminal.show(line)
            case "record":
                self._timings.merge(unpacked(content))
            case "groups":
                self._groups.update(content)

    def _sweep(self) -> None:
        """Remove what killed workers left behind; living workers hold locks."""
        if not self._has_machines:
            return
        try:
            runs = (self._settings.store or default_store(choose_uri(self._settings))) / "runs"
        except HostError:  # the URI is wrong, so no worker has a machine
            return
        if runs.is_dir():
            sweep(runs)


def _scheduler(config: pytest.Config, log: Any, groups: dict[str, str]) -> Any:
    """xdist's scheduler for ``--dist=loadgroup``, with `groups` passed to it.

    xdist's workers append groups to the node ids, and its scheduler reads them there. The plugin's groups would
    show in every node id, and ``--lf`` would not find a test whose group had another name in the last run. With
    pytest 9.2, xdist 3.8 cannot change node ids, so the user's own groups depend on this scheduler too.
    """
    from xdist.scheduler import LoadGroupScheduling  # only there with xdist

    class StateScheduling(LoadGroupScheduling):  # type: ignore[misc] # it has no types
        def _split_scope(self, nodeid: str) -> str:
            return groups.get(nodeid) or super()._split_scope(nodeid)

    return StateScheduling(config, log)
