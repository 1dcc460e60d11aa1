"""What the plugin does after a test failed: report evidence, keep the machine, pause, as the options say."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from pytest_vmsnap.evidence import Evidence, attach
from pytest_vmsnap.machine import Cluster
from pytest_vmsnap.session.keep import PROPERTY as KEPT_PROPERTY
from pytest_vmsnap.session.keep import FailedMachineKeeper
from pytest_vmsnap.session.pause_on_failure import pause

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pytest

    from pytest_vmsnap.machine import AtTerminal, History
    from pytest_vmsnap.model import Settings
    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.session.engine import Engine
    from pytest_vmsnap.session.fixture_machines import FixtureMachine


class EvidenceRecorder:
    """Collects evidence from the machines of tests; `factor` returns the factor that scales deadlines."""

    def __init__(
        self,
        settings: Settings,
        *,
        progress: Progress,
        factor: Callable[[], float],
        at_terminal: AtTerminal,
    ) -> None:
        self._settings = settings
        self._at_terminal = at_terminal
        directory = settings.root / settings.artifacts_dir if settings.artifacts != "none" else None
        self._evidence = Evidence(directory, run=secrets.token_hex(4), factor=factor)
        self._keeper = FailedMachineKeeper(settings, progress)

    def observe(self, history: History) -> None:
        """Collect evidence of a machine that ends because its state could not be made, for the next report."""
        self._evidence.observe(history)

    def record_evidence(
        self,
        item: pytest.Item,
        report: pytest.TestReport,
        machines: Sequence[FixtureMachine],
        engine: Engine | None,
    ) -> None:
        """Add the evidence of a test's machines to the `report` of a phase of it, if options ask for it.

        After a failure, also keep the machines (``--vmsnap-keep``) and pause (``--vmsnap-pause``).
        """
        asked = self._settings.artifacts == "all" and report.when == "call" and report.passed
        if report.failed or asked:
            self._tell(item, report, machines)
        if report.failed and self._settings.keep and engine and machines:
            self._keep(item, report, machines, engine)
        if report.failed and self._settings.pause and report.when != "teardown" and machines:
            pause(machines, item.nodeid, self._at_terminal)

    def _tell(self, item: pytest.Item, report: pytest.TestReport, machines: Sequence[FixtureMachine]) -> None:
        found = self._evidence.report(
            _attempt(item), [history for each in machines for history in each.histories]
        )
        if report.failed:
            report.sections.extend(found.sections)
        if found.directory:
            _record(item, report, "vmsnap_artifacts", _below(self._settings.root, found.directory))
        for each in machines:
            if report.failed and isinstance(each.machine, Cluster):
                trace = found.directory / f"{each.fixture}-network.pcapng" if found.directory else None
                if lines := each.machine.network.evidence(trace):
                    report.sections.append((f"Network of {each.fixture}", "\n".join(lines)))
        attach(item.config, report, found)

    def _keep(
        self, item: pytest.Item, report: pytest.TestReport, machines: Sequence[FixtureMachine], engine: Engine
    ) -> None:
        lines = self._keeper.keep(engine, _attempt(item), machines, _reason(report))
        if lines:
            report.sections.append(("Kept machine", "\n".join(lines)))
        for line in lines:
            _record(item, report, KEPT_PROPERTY, line)


def _record(item: pytest.Item, report: pytest.TestReport, name: str, value: str) -> None:
    """Add a property to the test, for JUnit XML, which takes properties from the report of the teardown."""
    for properties in (item.user_properties, report.user_properties):
        if (name, value) not in properties:
            properties.append((name, value))


def _attempt(item: pytest.Item) -> str:
    """The test's node id, with the number of the rerun (pytest-rerunfailures) if it is one."""
    count = getattr(item, "execution_count", 1)
    return item.nodeid if count <= 1 else f"{item.nodeid}-rerun{count - 1}"


def _below(root: Path, path: Path) -> str:
    """`path` relative to the project's `root`, if it is below it."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _reason(report: pytest.TestReport) -> str:
    """Why a test failed, in one line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else report.longreprtext
    return text.strip().splitlines()[0] if text.strip() else ""
