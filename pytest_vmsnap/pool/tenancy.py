"""What a test has of the pool: a machine, and the moments of it that the test can go back to."""

from __future__ import annotations

import itertools
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap import fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap.fork import Snapshot
    from pytest_vmsnap.pool.lease import Lease
    from pytest_vmsnap.pool.pool import Pool

log = logging.getLogger("pytest_vmsnap.pool")

numbers = itertools.count(1)


@dataclass(slots=True, kw_only=True, eq=False)
class Moment:
    """A machine as it was: its snapshot, the moment it was made on, and the nonce that was in it.

    `wanted` is false once nobody will go back to it; others may be made on it still.
    """

    snapshot: Snapshot
    below: Moment | None = None
    nonce: str = ""
    wanted: bool = True


class Tenancy:
    """A machine in the hands of one test after another: `lease`, in the state of `origin` when it was taken.

    `lease` is another after each `go_back`.
    """

    def __init__(self, pool: Pool, lease: Lease, origin: Snapshot) -> None:
        self._pool = pool
        self._origin = Moment(snapshot=origin)
        self._mapped = self._origin  # what the machine was made from: its memory is a layer on that
        self._at = self._origin  # its disks are layers on that
        self._moments: list[Moment] = []
        self.lease = lease

    @property
    def origin(self) -> Moment:
        """The state that the machine was of when it was taken."""
        return self._origin

    def save(self, *, timeout: float) -> Moment:
        """Save the machine as it is now; it goes on, and another is made ahead for the way back.

        `timeout` in seconds, until no command runs. Raises `ChannelError` where one still does, `StoreFull`,
        `HostError`.
        """
        directory = self._pool.directory(f"snapshot-{next(numbers)}")
        try:
            snapshot = self.lease.save(directory, timeout=timeout)
        except BaseException:
            fork.remove(directory)
            raise
        moment = self._noted(snapshot)
        self._pool.renew_proof(self.lease)
        self.expect_return(moment)
        return moment

    def save_as_is(self) -> Moment:
        """Save the machine whatever it does now, for somebody else; it goes on. Nobody here will go back to it.

        Raises `StoreFull`, `GuestGone`, `HostError`.
        """
        directory = self._pool.directory(f"snapshot-{next(numbers)}")
        try:
            return self._noted(self.lease.save_as_is(directory))
        except BaseException:
            fork.remove(directory)
            raise

    def _noted(self, snapshot: Snapshot) -> Moment:
        """A moment of the machine, whose disks are layers on it from now on."""
        self._at = Moment(snapshot=snapshot, below=self._at, nonce=self.lease.nonce)
        self._moments.append(self._at)
        return self._at

    def go_back(self, moment: Moment, moved: Callable[[Lease], None]) -> None:
        """Take another machine, in the state of `moment`, in place of the one that there is.

        `moved` is called with the new one before the old one ends. Raises `RevertError` where none can be
        given.
        """
        lease = self._pool.take(moment.snapshot, nonce=moment.nonce)
        old, self.lease, self._mapped, self._at = self.lease, lease, moment, moment
        try:
            self._pool.returned(moment.snapshot)
            moved(lease)
        finally:
            self._pool.discard(old)
            self._trim()

    def expect_return(self, moment: Moment) -> None:
        """The test may go back to `moment`: a machine for that is made ahead."""
        if moment is not self._origin:
            self._pool.expect_return(moment.snapshot)

    def forget(self, *moments: Moment) -> None:
        """Nobody will go back to `moments`: what nothing else is made on is removed, in the background."""
        for moment in moments:
            moment.wanted = False
        needed = self._needed()
        gone = [moment for moment in self._moments if moment not in needed]
        self._moments = [moment for moment in self._moments if moment in needed]
        self._trim()
        unwanted = [moment.snapshot for moment in (*gone, *moments)]
        self._pool.later(lambda: self._remove(unwanted, gone))

    def forget_all(self) -> None:
        """The test has ended, and may go back no more; what the machine stands on stays while it is there."""
        self.forget(*self._moments)

    def end(self) -> None:
        """Give the machine back, which ends."""
        self._pool.discard(self.lease)
        self._mapped = self._at = self._origin
        self.forget_all()

    def _needed(self) -> list[Moment]:
        """What somebody may go back to, what the machine stands on, and all that is below these."""
        needed = []
        for moment in [*(moment for moment in self._moments if moment.wanted), self._at]:
            layer: Moment | None = moment
            while layer and layer not in needed:
                needed.append(layer)
                layer = layer.below
        return needed

    def _trim(self) -> None:
        """Remove the memory files that nobody maps any more; what they were made from stays."""
        for moment in self._moments:
            if not moment.wanted and moment is not self._mapped:
                moment.snapshot.memory.drop()

    def _remove(self, unwanted: list[Snapshot], gone: list[Moment]) -> None:
        self._pool.expect_no_return(unwanted)
        for moment in gone:
            with suppress(OSError):
                fork.remove(moment.snapshot.directory)
