"""The plugin's implementations of pytest's hooks: options, header, markers, order, reports."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import pytest

from pytest_vmsnap import hookspecs, selection, states
from pytest_vmsnap.errors import PromiseBroken, StateError
from pytest_vmsnap.fixtures import (
    vm,
    vm_class,
    vm_cluster,
    vm_cluster_class,
    vm_cluster_module,
    vm_cluster_session,
    vm_factory,
    vm_module,
    vm_session,
    vm_spec,
    vmsnap,
)
from pytest_vmsnap.host import silence_taint_warnings
from pytest_vmsnap.interrupt import Interrupt
from pytest_vmsnap.options import (
    BY_NAME,
    OPTIONS,
    OptionError,
    changed,
    native_table,
    resolve,
    unknown_variables,
)
from pytest_vmsnap.session import (
    KEPT_PROPERTY,
    SESSION_KEY,
    SETTINGS_KEY,
    Timings,
    VmsnapSession,
    expect_terminal,
)
from pytest_vmsnap.summary import Summary
from pytest_vmsnap.terminal import SILENT_VERBOSITY, Terminal
from pytest_vmsnap.workers import WORKER_KEY, Controller, Worker

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Sequence

    from pytest_vmsnap.model import Settings, Shard

silence_taint_warnings()  # on import, because a conftest may import libvirt

# the fixtures, which pytest finds here
__all__ = [
    "vm",
    "vm_class",
    "vm_cluster",
    "vm_cluster_class",
    "vm_cluster_module",
    "vm_cluster_session",
    "vm_factory",
    "vm_module",
    "vm_session",
    "vm_spec",
    "vmsnap",
]

TERMINAL_KEY = pytest.StashKey[Terminal]()
INTERRUPT_KEY = pytest.StashKey[Interrupt]()
LISTINGS = ("collectonly", "showfixtures", "show_fixtures_per_test", "setupplan")  # collect without running
EMPTY_SHARD = "vmsnap_empty_shard"  # key in the workeroutput: all tests are in other shards
USAGE_ERROR = "vmsnap_usage_error"  # key in the workeroutput that an xdist worker sends to its controller


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup(
        "vmsnap",
        "virtual machines (set each option also as VMSNAP_NAME in the environment or vmsnap_NAME in the "
        "configuration file, unless it is for the command line only)",
    )
    for option in OPTIONS:
        group.addoption(option.flag, **option.argument)
        if not option.command_line_only:
            kind: Literal["linelist", "string"] = "linelist" if option.multiple else "string"
            parser.addini(option.key, option.description, type=kind, default=None)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    for line in selection.marker_lines():
        config.addinivalue_line("markers", line)
    if config.option.help:  # show the help even if an option has a wrong value
        return
    settings = settings_of(config)
    worker = Worker(config) if hasattr(config, "workerinput") else None
    terminal = Terminal(config, relay=worker.say if worker else None)
    timings = Timings(on_record=worker.record if worker else None)
    config.pluginmanager.register(Order(), "vmsnap-order")
    config.pluginmanager.register(terminal, "vmsnap-terminal")
    config.stash[SETTINGS_KEY] = settings
    config.stash[TERMINAL_KEY] = terminal
    config.stash[SESSION_KEY] = VmsnapSession(
        settings,
        write=terminal.write,
        quiet=config.get_verbosity() < 0,
        hooks=config.hook,
        at_terminal=terminal.capture_disabled,
        timings=timings,
        lock_owner=worker.lock_owner if worker else None,
    )
    config.pluginmanager.register(Summary(settings, timings), "vmsnap-summary")
    if worker:
        config.stash[WORKER_KEY] = worker
    config.pluginmanager.register(worker or Controller(settings, terminal, timings), "vmsnap-workers")
    config.stash[INTERRUPT_KEY] = Interrupt(config, terminal.write)
    config.pluginmanager.register(config.stash[INTERRUPT_KEY], "vmsnap-interrupt")


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    has_workers = hasattr(config, "workerinput") or bool(getattr(config.option, "tx", None))
    at_terminal = config.stash[TERMINAL_KEY].capture_disabled
    expect_terminal(config.stash[SETTINGS_KEY], is_worker=has_workers, at_terminal=at_terminal)


def pytest_report_header(config: pytest.Config) -> list[str]:
    found = [f"{name}={text} ({origin})" for name, text, origin in changed(config.stash[SETTINGS_KEY])]
    found += [f"{name} in the environment is not a known option" for name in unknown_variables(os.environ)]
    return [f"vmsnap: {', '.join(found)}"] if found else []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    modules = [*config.pluginmanager.get_plugins(), *(getattr(item, "module", None) for item in items)]
    try:
        tree = states.collect(modules, root=config.rootpath)
        for name in config.stash[SETTINGS_KEY].refresh_state:
            tree.require(name, BY_NAME["refresh_state"].written("command line", name))
        for item in items:
            selection.check(item.iter_markers(), _fixtures(item), item.nodeid, tree)
    except (selection.MarkerError, StateError) as error:
        items.clear()  # so that pytest reports none as collected, and xdist starts none
        if hasattr(config, "workerinput"):
            config.workeroutput[USAGE_ERROR] = str(error)  # type: ignore[attr-defined] # xdist's
        raise pytest.UsageError(str(error)) from error
    config.stash[SESSION_KEY].tree = tree


class Order:
    """Sorts the tests; a plugin of its own, so that it runs after plugins that select or shuffle tests."""

    def __init__(self) -> None:
        self._shard_is_empty = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        if shard := config.stash[SETTINGS_KEY].shard:
            others = _deselect(config, items, shard)
            if others and not items and hasattr(config, "workerinput"):
                config.workeroutput[EMPTY_SHARD] = True  # type: ignore[attr-defined] # xdist's
            self._shard_is_empty = bool(others and not items)
        # --stepwise relies on the order in which it saw the tests
        if config.stash[SETTINGS_KEY].order == "state" and not config.getoption("stepwise", False):
            items[:] = selection.in_order(items, config.stash[SESSION_KEY].tree)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        self._shard_is_empty |= getattr(node, "workeroutput", {}).get(EMPTY_SHARD, False)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Pass if the other shards have all tests: a suite may have fewer states than CI has jobs."""
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self._shard_is_empty:
            session.exitstatus = pytest.ExitCode.OK


def _deselect(config: pytest.Config, items: list[pytest.Item], shard: Shard) -> list[pytest.Item]:
    """Leave the tests of `shard` in `items`; returns the others."""
    try:
        seconds = selection.recorded_durations(config.rootpath)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    items[:], others = selection.in_shard(items, shard, seconds)
    if others:
        config.hook.pytest_deselected(items=others)
    return others


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Raise a worker's usage error in xdist's controller, because xdist does not show it."""
    if message := getattr(node, "workeroutput", {}).get(USAGE_ERROR):
        raise pytest.UsageError(message)


def pytest_report_collectionfinish(config: pytest.Config, items: Sequence[pytest.Item]) -> list[str]:
    lists = any(getattr(config.option, name, False) for name in LISTINGS)
    if lists or config.get_verbosity() <= SILENT_VERBOSITY:
        return []
    if not any(selection.uses_machine(_fixtures(item)) for item in items):
        return []
    lines = config.stash[SESSION_KEY].describe()
    if worker := config.stash.get(WORKER_KEY, None):
        worker.send_header(lines)
    return lines


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    item.config.stash[SESSION_KEY].note_following(nextitem)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.config.stash[SESSION_KEY].begin(item)


@pytest.hookimpl(wrapper=True, trylast=True)  # inside other wrappers, for example those that measure the test
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    session = item.config.stash[SESSION_KEY]
    try:
        yield
    finally:
        session.note_end(item)
    try:
        session.expect_unchanged(item)
    except PromiseBroken as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    session = item.config.stash[SESSION_KEY]
    # a test that fails as expected (xfail) leaves as much behind in its machine as any failed test
    session.note_outcome(item, report.failed or (hasattr(report, "wasxfail") and call.excinfo is not None))
    session.record_evidence(item, report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the commands that open the kept machines, whichever worker kept them."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    properties = [pair for report in reports for pair in getattr(report, "user_properties", ())]
    if lines := list(dict.fromkeys(text for name, text in properties if name == KEPT_PROPERTY)):
        terminalreporter.section("vmsnap: kept machines")
        for line in lines:
            terminalreporter.line(line)


@pytest.hookimpl(trylast=True)  # after the session's fixtures are torn down
def pytest_sessionfinish(session: pytest.Session) -> None:
    _close(session.config)
    if terminal := session.config.stash.get(TERMINAL_KEY, None):
        terminal.continued()


def pytest_unconfigure(config: pytest.Config) -> None:
    _close(config)
    if interrupt := config.stash.get(INTERRUPT_KEY, None):
        interrupt.close()
    if terminal := config.stash.get(TERMINAL_KEY, None):
        terminal.close()


def settings_of(config: pytest.Config) -> Settings:
    """The settings from all sources of options; raises `pytest.UsageError` if an option is wrong."""
    try:
        return resolve(
            vars(config.option),
            os.environ,
            _ini(config),
            config.rootpath,
            cwd=config.invocation_params.dir,
        )
    except OptionError as error:
        raise pytest.UsageError(str(error)) from error


def _ini(config: pytest.Config) -> dict[str, object]:
    """The values in the configuration file, by option; None for options that it does not set."""
    values: dict[str, object] = {}
    for option in OPTIONS:
        if option.command_line_only:
            continue
        try:
            values[option.key] = config.getini(option.key)
        except (TypeError, pytest.UsageError):
            # pytest 9's native table: a value of several types there (1024 or "2G") fits no type of addini()
            native = native_table(config.inipath)
            if option.key not in native:
                raise
            values[option.key] = native[option.key]
    return values


def _fixtures(item: pytest.Item) -> Collection[str]:
    names: Collection[str] = getattr(item, "fixturenames", ())
    return names


def _close(config: pytest.Config) -> None:
    if session := config.stash.get(SESSION_KEY, None):
        session.close()
