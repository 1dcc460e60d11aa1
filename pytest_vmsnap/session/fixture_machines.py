"""The machines that fixtures provide."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import SpecError

if TYPE_CHECKING:
    import pytest

    from pytest_vmsnap.machine import Cluster, History, Machine
    from pytest_vmsnap.pool import Allocation
    from pytest_vmsnap.progress import Progress

log = logging.getLogger("pytest_vmsnap.session")


@dataclass(slots=True, kw_only=True, eq=False)
class FixtureMachine:
    """The `machine`, or cluster, that `fixture` provides to the node `owner`, its `histories` and `allocation`.

    `ends` says whether the machine ends with its fixture.
    """

    fixture: str
    owner: str
    machine: Machine | Cluster
    histories: tuple[History, ...]
    allocation: Allocation[Any]
    ends: bool = True

    @property
    def label(self) -> str:
        """What the command line and artifacts call it: the fixture, or the name that the test gave."""
        return self.fixture.rpartition(":")[2]


class FixtureMachines:
    """The machines in use, and those whose fixture has ended but whose test is not reported yet."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._in_use: dict[tuple[str, str], FixtureMachine] = {}  # by fixture and owner
        self._released: list[FixtureMachine] = []

    def add(self, entry: FixtureMachine) -> None:
        """Note that a fixture provides `entry`."""
        self._in_use[entry.fixture, entry.owner] = entry

    def find(self, fixture: str, owner: str) -> FixtureMachine | None:
        """The machine in use that `fixture` provides to the node `owner`, or None."""
        return self._in_use.get((fixture, owner))

    def free_name(self, fixture: str, owner: str, name: str | None) -> str:
        """`fixture:name` for another machine of the node `owner`; without `name`, the next free number.

        Raises `SpecError` if the node already has a machine of that name.
        """
        taken = [each for each, node in self._in_use if node == owner]
        if name and f"{fixture}:{name}" in taken:
            raise SpecError(f"{fixture}(name={name!r}): this test already has a machine of this name")
        names = [name] if name else map(str, count(len(taken)))
        return next(free for each in names if (free := f"{fixture}:{each}") not in taken)

    def of_test(self, item: pytest.Item) -> list[FixtureMachine]:
        """The machines that the test uses, and those that it used and that have not ended yet."""
        names = getattr(item, "fixturenames", ())  # without fixtures that it requests while it runs
        return [
            entry
            for entry in (*self._in_use.values(), *self._released)
            if entry.owner == item.nodeid or entry.fixture.partition(":")[0] in names
        ]

    def give_back(self, entry: FixtureMachine) -> None:
        """Note that the fixture of `entry` ends; the machine itself ends after its test is reported."""
        entry.machine.release(entry.owner)
        del self._in_use[entry.fixture, entry.owner]
        self._released.append(entry)

    def end_released(self) -> None:
        """End the machines whose fixtures have ended; call it once their tests are reported."""
        while self._released:
            entry = self._released.pop(0)
            try:
                if entry.ends:
                    entry.allocation.end()
                else:
                    entry.allocation.release_savepoints()
            except Exception as error:
                log.exception("%s could not be released", entry.machine)
                self._progress.say(
                    f"{entry.machine.name} could not be ended and may stay until the run ends: {error}"
                )
