"""What a test has from the pool: a machine, and the savepoints that the test can go back to."""

from __future__ import annotations

import itertools
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from pytest_vmsnap import fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap.fork import Saved
    from pytest_vmsnap.pool.cluster_lease import ClusterLease
    from pytest_vmsnap.pool.lease import Lease
    from pytest_vmsnap.pool.pool import Pool

LeaseT = TypeVar("LeaseT", "Lease", "ClusterLease")

log = logging.getLogger("pytest_vmsnap.pool")

numbers = itertools.count(1)


@dataclass(slots=True, kw_only=True, eq=False)
class Savepoint:
    """A machine at one moment: its snapshot, the savepoint `below` it, and the nonce that was in it.

    `wanted` is false once no test will go back to it; other savepoints may still be built on it.
    """

    snapshot: Saved
    below: Savepoint | None = None
    nonce: str = ""
    wanted: bool = True


class Allocation(Generic[LeaseT]):
    """A machine that one test after another uses: `lease`, in the state of `origin` when it was taken.

    Each `revert_to` replaces `lease`.
    """

    def __init__(self, pool: Pool, lease: LeaseT, origin: Saved) -> None:
        self._pool = pool
        self._origin = Savepoint(snapshot=origin)
        self._mapped = self._origin  # what the machine was made from: its memory is a layer on it
        self._at = self._origin  # its disks are layers on this one
        self._savepoints: list[Savepoint] = []
        self.lease: LeaseT = lease

    @property
    def origin(self) -> Savepoint:
        """The state of the machine when it was taken."""
        return self._origin

    def save(self, *, timeout: float) -> Savepoint:
        """Save the machine as it is now; it continues, and a standby is made for the way back.

        Waits at most `timeout` seconds until no command runs. Raises `ChannelError` if one still runs then,
        `StoreFull`, `HostError`.
        """
        directory = self._pool.directory(f"snapshot-{next(numbers)}")
        try:
            snapshot = self.lease.save(directory, timeout=timeout)
        except BaseException:
            fork.remove(directory)
            raise
        savepoint = self._noted(snapshot)
        self._pool.renew_proof(self.lease)
        self.prepare_revert(savepoint)
        return savepoint

    def save_as_is(self) -> Savepoint:
        """Save the machine whatever it does now; it continues. For use elsewhere: no standby is made for it.

        Raises `StoreFull`, `GuestGone`, `HostError`.
        """
        directory = self._pool.directory(f"snapshot-{next(numbers)}")
        try:
            return self._noted(self.lease.save_as_is(directory))
        except BaseException:
            fork.remove(directory)
            raise

    def _noted(self, snapshot: Saved) -> Savepoint:
        """Record a savepoint; from now on the machine's disks are layers on it."""
        self._at = Savepoint(snapshot=snapshot, below=self._at, nonce=self.lease.nonce)
        self._savepoints.append(self._at)
        return self._at

    def revert_to(self, savepoint: Savepoint, moved: Callable[[LeaseT], None]) -> None:
        """Replace the machine with another one in the state of `savepoint`.

        `moved` is called with the new lease before the old machine ends. Raises `RevertError` or `StoreDamaged`
        as `Pool.take` does.
        """
        lease = cast("LeaseT", self._pool.take(savepoint.snapshot, nonce=savepoint.nonce))
        old, self.lease, self._mapped, self._at = self.lease, lease, savepoint, savepoint
        try:
            self._pool.returned(savepoint.snapshot)
            moved(lease)
        finally:
            self._pool.discard(old)
            self._trim()

    def prepare_revert(self, savepoint: Savepoint) -> None:
        """Make a standby of `savepoint`, because the test may go back to it."""
        if savepoint is not self._origin:
            self._pool.prepare_revert(savepoint.snapshot)

    def forget(self, *savepoints: Savepoint) -> None:
        """Drop `savepoints`; those that nothing else is built on are removed in the background."""
        for savepoint in savepoints:
            savepoint.wanted = False
        needed = self._needed()
        gone: list[Savepoint] = [savepoint for savepoint in self._savepoints if savepoint not in needed]
        self._savepoints = [savepoint for savepoint in self._savepoints if savepoint in needed]
        self._trim()
        unwanted = [savepoint.snapshot for savepoint in (*gone, *savepoints)]
        self._pool.run_in_background(lambda: self._remove(unwanted, gone))

    def release_savepoints(self) -> None:
        """Drop all savepoints after the test; those that the machine is built on stay as long as it does."""
        self.forget(*self._savepoints)

    def end(self) -> None:
        """Give the machine back; the pool ends it."""
        self._pool.discard(self.lease)
        self._mapped = self._at = self._origin
        self.release_savepoints()

    def _needed(self) -> list[Savepoint]:
        """The savepoints that are wanted, the one that the machine is built on, and all those below them."""
        needed = []
        for savepoint in [*(savepoint for savepoint in self._savepoints if savepoint.wanted), self._at]:
            layer: Savepoint | None = savepoint
            while layer and layer not in needed:
                needed.append(layer)
                layer = layer.below
        return needed

    def _trim(self) -> None:
        """Remove the memory files that are no longer needed; the layers that they were built from stay."""
        for savepoint in self._savepoints:
            if not savepoint.wanted and savepoint is not self._mapped:
                savepoint.snapshot.drop_memory()

    def _remove(self, unwanted: list[Saved], gone: list[Savepoint]) -> None:
        self._pool.cancel_prepared(unwanted)
        for savepoint in gone:
            with suppress(OSError):
                fork.remove(savepoint.snapshot.directory)
