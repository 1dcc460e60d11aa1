"""The clones of a cluster for a test: on one switch, saved and handed over as one."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pytest_vmsnap.errors import VmsnapError
from pytest_vmsnap.fork import ClusterSnapshot
from pytest_vmsnap.pool.teardown import Teardown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pytest_vmsnap.fork import Clone, Snapshot
    from pytest_vmsnap.model import GuestNotes
    from pytest_vmsnap.network.switch import Switch
    from pytest_vmsnap.pool.lease import Lease

log = logging.getLogger("pytest_vmsnap.pool")

Item = TypeVar("Item")
Result = TypeVar("Result")


def for_each(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Do `work` on all `items` at once; return the results in order, or raise the first error at the end."""
    todo = list(items)
    if len(todo) == 1:
        return [work(todo[0])]
    with ThreadPoolExecutor(len(todo), thread_name_prefix="vmsnap-cluster") as threads:
        futures = [threads.submit(work, item) for item in todo]
    return [future.result() for future in futures]


@dataclass(slots=True, kw_only=True, eq=False)
class ClusterLease(Teardown):
    """The `leases` of a cluster's machines by name, and the `switch` between them."""

    leases: dict[str, Lease]
    switch: Switch

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"the cluster of {', '.join(lease.name for lease in self.leases.values())}"

    @property
    def nonce(self) -> str:
        """The proofs that were left in the machines."""
        return " ".join(lease.nonce for lease in self.leases.values())

    def suspend(self) -> None:
        """Stop the processors of all machines."""
        self._all(lambda lease: lease.suspend())

    def resume(self) -> None:
        """Let the processors of all machines run."""
        self._all(lambda lease: lease.resume())

    def ping(self) -> None:
        """Ask each machine for an answer ahead."""
        for lease in self.leases.values():
            lease.ping()

    def save(self, directory: Path, *, timeout: float) -> ClusterSnapshot:
        """Save all machines at one moment into `directory`; they continue.

        Waits at most `timeout` seconds until no command runs. Raises `ChannelError` if one still runs then,
        `StoreFull`, `HostError`, `SwitchGone`.
        """
        self.switch.expect_running()
        with ExitStack() as stack:
            notes = {}
            for name, lease in self.leases.items():
                stack.enter_context(lease.channel.idle(timeout=timeout))
                notes[name] = lease.channel.notes(lease.clone.snapshot.guest.reseeder, timeout=timeout)
            return self._saved(directory, notes)

    def save_as_is(self, directory: Path) -> ClusterSnapshot:
        """Save all machines at one moment, whatever they do. Raises `StoreFull`, `GuestGone`, `HostError`."""
        notes = {
            name: lease.channel.known_notes(lease.clone.snapshot.guest.reseeder)
            for name, lease in self.leases.items()
        }
        return self._saved(directory, notes)

    def _saved(self, directory: Path, notes: dict[str, GuestNotes]) -> ClusterSnapshot:
        """Save all machines; what is on its way between them is lost, and TCP sends it again."""

        def save(name: str) -> Snapshot:
            place = directory / name
            place.mkdir(mode=0o700)
            clone: Clone = self.leases[name].clone
            return clone.save(place, guest=notes[name])

        running = [lease for lease in self.leases.values() if lease.clone.domain.condition() == "running"]
        faults = self.switch.faults
        try:
            for_each(lambda lease: lease.suspend(), running)
            snapshots = for_each(save, self.leases)
        finally:
            try:
                for_each(lambda lease: lease.resume(), running)
            except (VmsnapError, OSError):  # the test goes on with them
                log.exception("%s could not be resumed, and is tried again", self.name)
                for_each(lambda lease: lease.resume(), running)
        return ClusterSnapshot(
            directory=directory, machines=dict(zip(self.leases, snapshots, strict=True)), faults=faults
        )

    def is_well(self) -> bool:
        """Whether all machines run and answer, and the switch runs."""
        return self.switch.is_running and all(lease.is_well() for lease in self.leases.values())

    def finish(self) -> None:
        with ExitStack() as steps:  # each step runs, even if another raises
            steps.callback(self.switch.close)
            steps.callback(self._all, lambda lease: lease.finish())

    def _all(self, work: Callable[[Lease], None]) -> None:
        for_each(work, self.leases.values())
