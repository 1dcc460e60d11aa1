"""Keeping the machines of tests that failed, and holding one alive."""

from __future__ import annotations

import logging
import os
import shlex
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import VmsnapError
from pytest_vmsnap.evidence import Keeper, Note, trim

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vmsnap.machine import AtTerminal
    from pytest_vmsnap.model import Settings
    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.session.engine import Engine
    from pytest_vmsnap.session.lent import Lent

log = logging.getLogger("pytest_vmsnap.evidence")

PROPERTY = "vmsnap_kept"  # of a test: the command that opens its machine


class Keeping:
    """What `keep` asks for; each attempt at a test is kept once."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self._settings = settings
        self._progress = progress
        self._seen: set[tuple[str, str]] = set()

    def keep(self, engine: Engine, test: str, lent: Sequence[Lent], why: str) -> list[str]:
        """Keep the machines of a failed test.

        Returns a line for each: the command that opens it, or why it is not kept.
        """
        keeper = Keeper(
            engine.store,
            session=os.environ.get("PYTEST_XDIST_TESTRUNUID") or engine.host.run.id,
            most=self._settings.keep,
            project=self._settings.root,
        )
        lines = []
        for each in lent:
            if (test, each.fixture) in self._seen:
                continue
            self._seen.add((test, each.fixture))
            if line := self._kept(keeper, test, each, why, alone=len(lent) == 1):
                lines.append(line)
        if lines:
            self._trim(engine)
        return lines

    def _trim(self, engine: Engine) -> None:
        """Remove what is too old or too much; what cannot be now, by another worker's doing say, is later."""
        try:
            for gone in trim(engine.store, limit_mib=self._settings.keep_limit, days=self._settings.keep_days):
                log.info("removed the kept machine of %s", gone.note.title)
        except (VmsnapError, OSError) as error:
            log.warning("old kept machines could not be removed", exc_info=error)

    def _kept(self, keeper: Keeper, test: str, lent: Lent, why: str, *, alone: bool) -> str:
        label = lent.trail.label
        domain = lent.tenancy.lease.clone.domain
        if domain.condition() == "stopped":
            return f"{label} of {test} is not kept: it is off"
        if "stopped by a signal" in (trouble := domain.trouble()):
            return f"{label} of {test} is not kept: {trouble}"
        note = Note(title=test, label=label, state=lent.machine.state, why=why)
        try:
            with self._progress.step(f"keeping {label} of {test}"):
                found = keeper.keep(lent.tenancy, note)
        except (VmsnapError, OSError) as error:
            log.warning("%s of %s could not be kept", label, test, exc_info=error)
            return f"{label} of {test} is not kept: {str(error).splitlines()[0]}"
        if found is None:
            return ""
        which = "" if alone else f" --machine {shlex.quote(label)}"
        return f"vmsnap open {shlex.quote(test)}{which}"


def hold(lent: Sequence[Lent], test: str, at_terminal: AtTerminal) -> None:
    """Hold the machines of a failed test alive until the person at the terminal goes on; say how to get in."""
    with at_terminal():
        print(f"\nvmsnap: {test} failed; its machines are held")  # noqa: T201 - the person's terminal
        for each in lent:
            for line in _ways_in(each):
                print(f"  {line}")  # noqa: T201
        while True:
            try:
                said = input("vmsnap: s and Enter for a shell, Enter to go on: ").strip()
            except EOFError:
                said = ""
            if said != "s":
                return
            for each in lent:
                try:
                    each.machine.interact()
                except VmsnapError as error:
                    print(f"vmsnap: {error}")  # noqa: T201


def _ways_in(lent: Lent) -> list[str]:
    lines = [f"{lent.trail.label}: {lent.machine.name}"]
    with suppress(VmsnapError):
        lines.append(f"  SSH: {lent.machine.ssh.command}")
    serial = lent.tenancy.lease.clone.domain.serial
    return [*lines, f"  serial console: socat -,raw,echo=0,escape=0x1d UNIX-CONNECT:{serial}"]


def expect_terminal(settings: Settings, *, is_worker: bool, at_terminal: AtTerminal) -> None:
    """Raise `pytest.UsageError` where a machine is to be held and nobody could say when to go on."""
    if not settings.pause:
        return
    if is_worker:
        raise pytest.UsageError("--vmsnap-pause needs a terminal, which xdist's workers have not: leave out -n")
    with at_terminal():
        if not (os.isatty(0) and os.isatty(1)):
            raise pytest.UsageError("--vmsnap-pause needs a terminal, and standard input or output is none")
