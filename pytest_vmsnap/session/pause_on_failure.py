"""Pause with the machines of a failed test running (``--vmsnap-pause``)."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import VmsnapError
from pytest_vmsnap.machine import Cluster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vmsnap.machine import AtTerminal, Machine
    from pytest_vmsnap.model import Settings
    from pytest_vmsnap.session.fixture_machines import FixtureMachine


def pause(machines: Sequence[FixtureMachine], test: str, at_terminal: AtTerminal) -> None:
    """Leave the machines of the failed `test` running until the user continues; show how to reach them."""
    with at_terminal():
        print(f"\nvmsnap: {test} failed; its machines keep running")  # noqa: T201 - the user's terminal
        for machine in _machines(machines):
            for line in _ways_in(machine):
                print(f"  {line}")  # noqa: T201
        while True:
            try:
                said = input("vmsnap: press Enter to continue, or type s and press Enter for a shell: ").strip()
            except EOFError:
                said = ""
            if said != "s":
                return
            for machine in _machines(machines):
                try:
                    machine.interact()
                except VmsnapError as error:
                    print(f"vmsnap: {error}")  # noqa: T201


def _machines(entries: Sequence[FixtureMachine]) -> list[Machine]:
    """The machines, and those of the clusters."""
    found: list[Machine] = []
    for entry in entries:
        found += entry.machine.values() if isinstance(entry.machine, Cluster) else [entry.machine]
    return found


def _ways_in(machine: Machine) -> list[str]:
    lines = [f"{machine.label}: {machine.name}"]
    with suppress(VmsnapError):
        lines.append(f"  SSH: {machine.ssh.command}")
    serial = machine.serial_console
    return [*lines, f"  serial console: socat -,raw,echo=0,escape=0x1d UNIX-CONNECT:{serial}"]


def expect_terminal(settings: Settings, *, is_worker: bool, at_terminal: AtTerminal) -> None:
    """Raise `pytest.UsageError` if ``--vmsnap-pause`` is set and there is no terminal to continue from."""
    if not settings.pause:
        return
    if is_worker:
        raise pytest.UsageError(
            "--vmsnap-pause needs a terminal, and pytest-xdist's workers have none: run without -n"
        )
    with at_terminal():
        if not (os.isatty(0) and os.isatty(1)):
            raise pytest.UsageError(
                "--vmsnap-pause needs a terminal, but standard input or standard output is not a terminal"
            )
