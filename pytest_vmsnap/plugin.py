"""pytest's hooks: options in, header, markers, order, reports."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import pytest

from pytest_vmsnap import hookspecs, selection, states
from pytest_vmsnap.errors import PromiseBroken, StateError
from pytest_vmsnap.fixtures import vm, vm_class, vm_factory, vm_module, vm_session, vm_spec, vmsnap
from pytest_vmsnap.host import keep_taints_quiet
from pytest_vmsnap.interrupt import Interrupt
from pytest_vmsnap.options import BY_NAME, OPTIONS, OptionError, changed, native_table, resolve, strangers
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

    from pytest_vmsnap.model import Settings

keep_taints_quiet()  # now: a conftest may import libvirt

# fixtures, for pytest to find
__all__ = ["vm", "vm_class", "vm_factory", "vm_module", "vm_session", "vm_spec", "vmsnap"]

TERMINAL_KEY = pytest.StashKey[Terminal]()
INTERRUPT_KEY = pytest.StashKey[Interrupt]()
LISTINGS = ("collectonly", "showfixtures", "show_fixtures_per_test", "setupplan")  # collect, and run nothing
USAGE_ERROR = "vmsnap_usage_error"  # in what an xdist worker leaves to its controller


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup(
        "vmsnap",
        "virtual machines (each also as VMSNAP_NAME in the environment, vmsnap_NAME in the configuration file, "
        "if it is not for the command line only)",
    )
    for option in OPTIONS:
        group.addoption(option.flag, **option.argument)
        if not option.command_line_only:
            kind: Literal["linelist", "string"] = "linelist" if option.many else "string"
            parser.addini(option.key, option.description, type=kind, default=None)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    for line in selection.marker_lines():
        config.addinivalue_line("markers", line)
    if config.option.help:  # help for who has a wrong value too
        return
    settings = settings_of(config)
    worker = Worker(config) if hasattr(config, "workerinput") else None
    terminal = Terminal(config, relay=worker.say if worker else None)
    timings = Timings(tell=worker.record if worker else None)
    config.pluginmanager.register(Order(), "vmsnap-order")
    config.pluginmanager.register(terminal, "vmsnap-terminal")
    config.stash[SETTINGS_KEY] = settings
    config.stash[TERMINAL_KEY] = terminal
    config.stash[SESSION_KEY] = VmsnapSession(
        settings,
        write=terminal.write,
        quiet=config.get_verbosity() < 0,
        hooks=config.hook,
        at_terminal=terminal.handed_over,
        timings=timings,
        asker=worker.asker if worker else None,
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
    at_terminal = config.stash[TERMINAL_KEY].handed_over
    expect_terminal(config.stash[SETTINGS_KEY], is_worker=has_workers, at_terminal=at_terminal)


def pytest_report_header(config: pytest.Config) -> list[str]:
    found = [f"{name}={text} ({origin})" for name, text, origin in changed(config.stash[SETTINGS_KEY])]
    found += [f"{name} in the environment is no option" for name in strangers(os.environ)]
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
        items.clear()  # nothing is reported as collected, or begun by xdist
        if hasattr(config, "workerinput"):
            config.workeroutput[USAGE_ERROR] = str(error)  # type: ignore[attr-defined] # xdist's
        raise pytest.UsageError(str(error)) from error
    config.stash[SESSION_KEY].tree = tree


class Order:
    """The order of tests, in a plugin of its own that comes after those that select and shuffle."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        # stepwise counts on the order in which it saw them
        if config.stash[SETTINGS_KEY].order == "state" and not config.getoption("stepwise", False):
            items[:] = selection.arranged(items, config.stash[SESSION_KEY].tree)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Raise in xdist's controller what a worker found wrong, which xdist itself does not show."""
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
        worker.head(lines)
    return lines


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    item.config.stash[SESSION_KEY].note_following(nextitem)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.config.stash[SESSION_KEY].begin(item)


@pytest.hookimpl(wrapper=True, trylast=True)  # within what others measure of the test
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
    # an expected failure leaves as much behind as any other
    session.note_outcome(item, report.failed or (hasattr(report, "wasxfail") and call.excinfo is not None))
    session.testify(item, report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the commands that open what was kept, whichever worker kept it."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    properties = [pair for report in reports for pair in getattr(report, "user_properties", ())]
    if lines := list(dict.fromkeys(text for name, text in properties if name == KEPT_PROPERTY)):
        terminalreporter.section("vmsnap: kept machines")
        for line in lines:
            terminalreporter.line(line)


@pytest.hookimpl(trylast=True)  # after the fixtures of the session are gone
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
    """What the options say; raises `pytest.UsageError`."""
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
    """The configuration file's values, None where it has none."""
    values: dict[str, object] = {}
    for option in OPTIONS:
        if option.command_line_only:
            continue
        try:
            values[option.key] = config.getini(option.key)
        except (TypeError, pytest.UsageError):
            # pytest 9's native table: what has several types there (1024 or "2G") fits none of addini's
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
