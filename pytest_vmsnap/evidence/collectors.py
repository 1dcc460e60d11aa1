"""The collectors: each makes one artifact of a machine, before a deadline; one can fail without the others."""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.evidence.artifact import Artifact
from pytest_vmsnap.guest import Request
from pytest_vmsnap.machine import screenshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_vmsnap.machine import CommandRecord, History

    Collector = Callable[[History, float], bytes]

log = logging.getLogger("pytest_vmsnap.evidence")

# journalctl(1); without a journal, the messages that the kernel still has. Only the end: a journal can have
# hundreds of megabytes.
JOURNAL_LINES = 5000
JOURNAL_BYTES = 4 << 20
JOURNAL = """\
if command -v journalctl >/dev/null
then journalctl --no-pager -o short-precise --since=@{since} --lines={lines}
else dmesg
fi | tail -c {size}
"""
LONGEST_NAME = 100  # characters, of 255 bytes that file systems allow
LONGEST_SHOWN = 160  # characters of a command
SLACK_SECONDS = 2.0  # by which the guest's clock may be behind the host's


def console(history: History, _seconds: float) -> bytes:
    """Return what the guest printed on its serial console during the test."""
    return history.console().encode()


def commands(history: History, _seconds: float) -> bytes:
    """Return the commands that ran in it, with times and the ends of their output."""
    return "".join(
        f"{line}\n" for record in history.records for line in format_command(record, lines=None)
    ).encode()


def journal(history: History, seconds: float) -> bytes:
    """Return the end of the guest's journal since the test began, or the kernel's messages if it has none."""
    if history.channel is None or history.backend is None or history.backend.domain.stall_reason():
        return b""
    since = max(0, int(history.since - SLACK_SECONDS))
    script = JOURNAL.format(since=since, lines=JOURNAL_LINES, size=JOURNAL_BYTES)
    return history.channel.run(Request(text=script), timeout=seconds).stdout


def log_of_qemu(history: History, _seconds: float) -> bytes:
    """Return what QEMU itself printed."""
    return history.backend.log().encode() if history.backend else b""


def description(history: History, _seconds: float) -> bytes:
    """Return libvirt's description of the running domain."""
    if history.backend is None or history.backend.domain.condition() == "stopped":
        return b""
    return history.backend.domain.xml().encode()


def screen(history: History, _seconds: float) -> bytes:
    """Return a PNG of its screen, if it has one."""
    if (
        history.backend is None
        or not history.backend.has_screen
        or history.backend.domain.condition() == "stopped"
    ):
        return b""
    with tempfile.TemporaryDirectory(prefix="vmsnap-") as name:
        return screenshot(history.backend, Path(name) / "screen.png").read_bytes()


COLLECTORS: dict[str, Collector] = {
    "console.txt": console,
    "commands.txt": commands,
    "journal.txt": journal,
    "qemu.log": log_of_qemu,
    "domain.xml": description,
    "screen.png": screen,
}


def collect(histories: Iterable[History], *, seconds: float) -> tuple[list[Artifact], list[str]]:
    """Collect the artifacts of all machines within `seconds`; return them, and why others are missing.

    A collector that takes longer is left running; it ends with its machine.
    """
    deadline = time.monotonic() + seconds
    tasks = [_Task(history, name, seconds) for history in histories for name in COLLECTORS]
    for task in tasks:
        task.join(max(0.0, deadline - time.monotonic()))
    return [artifact for task in tasks if (artifact := task.artifact)], [
        task.stall_reason for task in tasks if task.stall_reason
    ]


class _Task(threading.Thread):
    """A thread that runs one collector on one machine."""

    def __init__(self, history: History, name: str, seconds: float) -> None:
        super().__init__(name=f"vmsnap-evidence-{name}", daemon=True)
        self._history, self._file, self._seconds = history, name, seconds
        self._data = b""
        self._trouble = ""
        self._title = f"{name} of {history.label}"
        self.start()

    def run(self) -> None:
        try:
            self._data = COLLECTORS[self._file](self._history, self._seconds)
        except Exception as error:
            self._trouble = str(error).splitlines()[0] if str(error) else type(error).__name__
            log.info("%s", self._title, exc_info=error)

    @property
    def artifact(self) -> Artifact | None:
        """The artifact, or None if there is none."""
        if self.is_alive() or not self._data:
            return None
        return Artifact(
            name=f"{_file_name(self._history.label)}-{self._file}", title=self._title, data=self._data
        )

    @property
    def stall_reason(self) -> str:
        """Why the collector failed, or empty if it did not."""
        if self.is_alive():
            return f"{self._title}: not collected within {self._seconds:g} s"
        return f"{self._title}: {self._trouble}" if self._trouble else ""


def format_command(record: CommandRecord, *, lines: int | None) -> list[str]:
    """Return a command as lines of text, with the last `lines` of each stream (None: all that is kept)."""
    clock = datetime.fromtimestamp(record.began).astimezone().strftime("%H:%M:%S.%f")[:-3]
    often = f" ({record.count} times)" if record.count > 1 else ""
    command = record.command if lines is None else _short(record.command)
    shown = [f"{clock} {record.seconds:8.3f} s  {record.outcome}{often}  {command}"]
    for name, stream in (("stdout", record.stdout), ("stderr", record.stderr)):
        text = stream.decode(errors="replace").splitlines()
        shown += [f"    {name}: {line}" for line in (text if lines is None else text[-lines:])]
    return shown


def _file_name(label: str) -> str:
    """Return `label` as a file name; if it cannot be one, a similar name with a hash of the label."""
    plain = label.replace(" ", "-")
    safe = re.sub(r"[^\w.=+-]+", "-", plain).lstrip(".-")[:LONGEST_NAME]
    return safe if safe == plain else f"{safe}-{hashlib.sha256(label.encode()).hexdigest()[:6]}"


def _short(command: str) -> str:
    line = " ".join(command.split())
    return line if len(line) <= LONGEST_SHOWN else f"{line[:LONGEST_SHOWN]}..."
