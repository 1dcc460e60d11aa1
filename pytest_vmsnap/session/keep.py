"""Keep the machines of failed tests (``--vmsnap-keep``)."""

from __future__ import annotations

import logging
import os
import shlex
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import VmsnapError
from pytest_vmsnap.evidence import Keeper, Note, trim

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vmsnap.model import Settings
    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.session.engine import Engine
    from pytest_vmsnap.session.fixture_machines import FixtureMachine

log = logging.getLogger("pytest_vmsnap.evidence")

PROPERTY = "vmsnap_kept"  # of a test: the command that opens its kept machine


class FailedMachineKeeper:
    """Keeps machines as the option ``keep`` says; each machine of an attempt at a test is kept once."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self._settings = settings
        self._progress = progress
        self._seen: set[tuple[str, str]] = set()

    def keep(self, engine: Engine, test: str, machines: Sequence[FixtureMachine], why: str) -> list[str]:
        """Keep `machines` of the failed test `test`; `why` is the reason of its failure in one line.

        Returns a line for each machine: the command that opens it, or why it is not kept. Machines beyond the
        number that the option allows get no line.
        """
        keeper = Keeper(
            engine.store,
            session=os.environ.get("PYTEST_XDIST_TESTRUNUID") or engine.host.run.id,
            most=self._settings.keep,
            project=self._settings.root,
        )
        lines = []
        for each in machines:
            if (test, each.fixture) in self._seen:
                continue
            self._seen.add((test, each.fixture))
            if line := self._kept(keeper, test, each, why, alone=len(machines) == 1):
                lines.append(line)
        if lines:
            self._trim(engine)
        return lines

    def _trim(self, engine: Engine) -> None:
        """Remove kept machines that are too old or over the limit; if that fails, a later call does it."""
        try:
            for gone in trim(engine.store, limit_mib=self._settings.keep_limit, days=self._settings.keep_days):
                log.info("removed the kept machine of %s", gone.note.title)
        except (VmsnapError, OSError) as error:
            log.warning("old kept machines could not be removed", exc_info=error)

    def _kept(self, keeper: Keeper, test: str, entry: FixtureMachine, why: str, *, alone: bool) -> str:
        label = entry.label
        for name, lease in entry.allocation.lease.leases.items():
            what = f"its machine {name}" if name else "the machine"
            domain = lease.clone.domain
            if domain.condition() == "stopped":
                return f"{label} of {test} is not kept: {what} is off"
            if "stopped by a signal" in (trouble := domain.stall_reason()):
                return f"{label} of {test} is not kept: {trouble}"
        note = Note(title=test, label=label, state=entry.machine.state, why=why)
        try:
            with self._progress.step(f"keeping {label} of {test}"):
                found = keeper.keep(entry.allocation, note)
        except (VmsnapError, OSError) as error:
            log.warning("%s of %s could not be kept", label, test, exc_info=error)
            return f"{label} of {test} is not kept: {str(error).splitlines()[0]}"
        if found is None:
            return ""
        which = "" if alone else f" --machine {shlex.quote(label)}"
        first, *others = entry.allocation.lease.leases  # a cluster's machines by name
        what = f"{test}/{first}" if first else test
        more = f"  # or {', '.join(f'/{name}' for name in others)}" if others else ""
        return f"vmsnap open {shlex.quote(what)}{which}{more}"
