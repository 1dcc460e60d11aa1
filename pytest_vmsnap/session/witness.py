"""What becomes of a test's failure: it is told, kept, and held, as the options say."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from pytest_vmsnap.evidence import Evidence, attach
from pytest_vmsnap.session.keeping import PROPERTY as KEPT_PROPERTY
from pytest_vmsnap.session.keeping import Keeping, hold

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pytest

    from pytest_vmsnap.machine import AtTerminal, Trail
    from pytest_vmsnap.model import Settings
    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.session.engine import Engine
    from pytest_vmsnap.session.lent import Lent


class Witness:
    """Looks at the machines of tests; `factor` tells by how much deadlines are stretched."""

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
        self._keeping = Keeping(settings, progress)

    def observe(self, trail: Trail) -> None:
        """A machine ends, since its state could not be made: the next report tells of it."""
        self._evidence.observe(trail)

    def testify(
        self, item: pytest.Item, report: pytest.TestReport, lent: Sequence[Lent], engine: Engine | None
    ) -> None:
        """Have in the `report` of a phase of a test what its machines can say, where that is wanted."""
        asked = self._settings.artifacts == "all" and report.when == "call" and report.passed
        if report.failed or asked:
            self._tell(item, report, lent)
        if report.failed and self._settings.keep and engine and lent:
            self._keep(item, report, lent, engine)
        if report.failed and self._settings.pause and report.when != "teardown" and lent:
            hold(lent, item.nodeid, self._at_terminal)

    def _tell(self, item: pytest.Item, report: pytest.TestReport, lent: Sequence[Lent]) -> None:
        found = self._evidence.report(_attempt(item), [each.trail for each in lent])
        if report.failed:
            report.sections.extend(found.sections)
        if found.directory:
            _record(item, report, "vmsnap_artifacts", _below(self._settings.root, found.directory))
        attach(item.config, report, found)

    def _keep(self, item: pytest.Item, report: pytest.TestReport, lent: Sequence[Lent], engine: Engine) -> None:
        lines = self._keeping.keep(engine, _attempt(item), lent, _reason(report))
        if lines:
            report.sections.append(("Kept machine", "\n".join(lines)))
        for line in lines:
            _record(item, report, KEPT_PROPERTY, line)


def _record(item: pytest.Item, report: pytest.TestReport, name: str, value: str) -> None:
    """Note a property of a test for junit, which takes them from the report of its teardown."""
    for properties in (item.user_properties, report.user_properties):
        if (name, value) not in properties:
            properties.append((name, value))


def _attempt(item: pytest.Item) -> str:
    """The test's name, and which rerun of it (pytest-rerunfailures) this is."""
    count = getattr(item, "execution_count", 1)
    return item.nodeid if count <= 1 else f"{item.nodeid}-rerun{count - 1}"


def _below(root: Path, path: Path) -> str:
    """A path as it is named from the project's root, if it is in there."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _reason(report: pytest.TestReport) -> str:
    """Why a test failed, in a line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else report.longreprtext
    return text.strip().splitlines()[0] if text.strip() else ""
