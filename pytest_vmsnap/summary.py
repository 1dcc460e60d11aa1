"""How long a run's states and reverts took: a line at its end, tables on request, properties in JUnit XML."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.session import Totals, totals
from pytest_vmsnap.terminal import SILENT_VERBOSITY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_vmsnap.model import Settings
    from pytest_vmsnap.session import Revert, StateUse, Timings

PER_TEST = ("vmsnap_state", "vmsnap_revert_seconds", "vmsnap_standby")
WITHIN = "(within a test)"  # in place of a state's name: the test reverted to a snapshot of its own


class Summary:
    """Adds the plugin's figures to test reports, to JUnit XML and to the terminal summary."""

    def __init__(self, settings: Settings, timings: Timings) -> None:
        self._settings = settings
        self._timings = timings

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Drop the properties of an earlier attempt, if a plugin reruns the test."""
        item.user_properties[:] = [pair for pair in item.user_properties if pair[0] not in PER_TEST]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> None:
        """Add the machines that the test got to its report, for JUnit XML; xdist sends it to the controller."""
        for revert in self._timings.take_new_reverts():
            item.user_properties += properties_of(revert)

    @pytest.hookimpl(tryfirst=True)  # before pytest writes the JUnit XML file
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if found := totals(self._timings):
            for plugin in session.config.pluginmanager.get_plugins():
                if add := getattr(
                    plugin, "add_global_property", None
                ):  # of pytest's LogXML; record_testsuite_property calls it too
                    for name, value in properties(found):
                        add(name, value)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        found = totals(self._timings)
        least = SILENT_VERBOSITY if self._settings.timings else -1
        if found is None or config.get_verbosity() <= least:
            return
        if self._settings.timings:
            terminalreporter.write_sep("=", "vmsnap timings")
            for line in tables(self._timings.states, self._timings.reverts):
                terminalreporter.write_line(line)
        terminalreporter.write_line(f"vmsnap: {sentence(found)}")


def sentence(found: Totals) -> str:
    """The figures of a run as one line."""
    words = []
    if found.built:
        words.append(f"{_counted(found.built, 'state')} built ({_time(found.build_seconds)})")
    for count, place in ((found.pulled, "registry"), (found.shared, "system store"), (found.reused, "store")):
        if count:
            words.append(f"{count if words else _counted(count, 'state')} from the {place}")
    if found.median is not None:
        words.append(_counted(found.reverts, "revert"))
        words.append(f"{_time(found.median)} at the median")
        words.append(f"{found.ahead} of {found.reverts} made ahead")
    return ", ".join(words)


def properties(found: Totals) -> Iterable[tuple[str, object]]:
    """The figures of a run as properties of the suite in JUnit XML."""
    yield "vmsnap_states_built", found.built
    yield "vmsnap_build_seconds", f"{found.build_seconds:.3f}"
    yield "vmsnap_states_from_registry", found.pulled
    yield "vmsnap_states_from_system_store", found.shared
    yield "vmsnap_states_from_store", found.reused
    yield "vmsnap_reverts", found.reverts
    if found.median is not None:
        yield "vmsnap_revert_seconds_median", f"{found.median:.4f}"
    yield "vmsnap_made_ahead", found.ahead


def properties_of(revert: Revert) -> list[tuple[str, object]]:
    """A machine that a test got, as properties of the test's report."""
    found = (revert.state or WITHIN, round(revert.seconds, 4), "hit" if revert.ahead else "made")
    return list(zip(PER_TEST, found, strict=True))


def tables(states: Sequence[StateUse], reverts: Sequence[Revert]) -> list[str]:
    """The figures by state and by test as lines of two tables, the slowest first."""
    by_state = [
        ("state", "built in", "reverts", "median", "slowest", "made ahead"),
        *_state_rows(states, reverts),
    ]
    by_test = [("waited", "reverts", "made ahead", "test"), *_test_rows(reverts)]
    return [*_aligned(by_state, left=(0,)), "", *_aligned(by_test, left=(3,))]


def _state_rows(states: Sequence[StateUse], reverts: Sequence[Revert]) -> list[tuple[str, ...]]:
    builds: dict[str, list[float]] = defaultdict(list)
    sources = {use.state: use.source for use in states if use.source}
    for use in states:
        builds[use.state] += [] if use.seconds is None else [use.seconds]
    groups: dict[str, list[Revert]] = {use.state: [] for use in states}
    for revert in reverts:
        groups.setdefault(revert.state or WITHIN, []).append(revert)
    rows: list[tuple[str, ...]] = []
    for state, group in sorted(groups.items(), key=lambda pair: -sum(builds[pair[0]])):
        source = f"the {sources.get(state, 'store')}"
        built = _time(sum(builds[state])) if builds[state] else "" if state == WITHIN else source
        waits = [revert.seconds for revert in group]
        middle, most = (_time(statistics.median(waits)), _time(max(waits))) if waits else ("", "")
        rows.append((state, built, str(len(group)), middle, most, _ahead(group)))
    return rows


def _test_rows(reverts: Sequence[Revert]) -> list[tuple[str, ...]]:
    groups: dict[str, list[Revert]] = defaultdict(list)
    for revert in reverts:
        groups[revert.test].append(revert)
    waits = {test: sum(revert.seconds for revert in group) for test, group in groups.items()}
    ranked = sorted(groups.items(), key=lambda pair: -waits[pair[0]])
    return [(_time(waits[test]), str(len(group)), _ahead(group), test) for test, group in ranked]


def _ahead(group: Sequence[Revert]) -> str:
    return f"{sum(revert.ahead for revert in group)} of {len(group)}"


def _aligned(rows: Sequence[Sequence[str]], *, left: Sequence[int]) -> list[str]:
    """The rows as lines of aligned columns: to the right, those whose number is in `left` to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        placed = [
            text.ljust(width) if number in left else text.rjust(width)
            for number, (text, width) in enumerate(cells)
        ]
        lines.append("  ".join(placed).rstrip())
    return lines


def _time(seconds: float) -> str:
    if seconds < 1:
        milliseconds = seconds * 1000
        return f"{milliseconds:.2g} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
