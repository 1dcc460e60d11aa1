"""Who gets which machine: a standby or one made at once; and what becomes of it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pytest_vmsnap.pool.budget import has_room
from pytest_vmsnap.pool.quiet import Quiet
from pytest_vmsnap.pool.standby import Standbys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_vmsnap.fork import Snapshot
    from pytest_vmsnap.pool.budget import Budget
    from pytest_vmsnap.pool.lease import Lease, Maker

DISCARDERS = 16  # ending a domain is waiting: up to 2 s where process 1 reaps slowly, so that 4 fell behind


class Pool:
    """Hands clones over, and ends them in the background; others wait ahead, as many as `budget` allows.

    `note` is told of each machine that is handed over: its snapshot, the seconds that it was waited for, and
    whether it had been made ahead. `handed_over` counts those that had, `most_ahead` is how many may wait.
    """

    def __init__(
        self,
        maker: Maker,
        *,
        budget: Budget,
        note: Callable[[Snapshot, float, bool], None] = lambda _snapshot, _seconds, _ahead: None,
    ) -> None:
        self.handed_over = 0
        self._note = note
        self._lock = threading.Lock()  # of what is expected: tests and the background both say so
        self._coming: list[Snapshot] = []
        self._returns: list[Snapshot] = []
        self._maker = maker
        self._discarders = ThreadPoolExecutor(DISCARDERS, thread_name_prefix="vmsnap-discard")
        self._quiet = Quiet()
        self.most_ahead = budget.share
        self._standbys = Standbys(
            maker, budget=budget, has_room=has_room, discard=self.discard, quiet=self._quiet
        )

    def awaken(self, snapshot: Snapshot | None) -> None:
        """A machine in the state of `snapshot` will be asked for in a moment, or nobody knows of which."""
        if snapshot:
            self._quiet.begin()
            self._standbys.awaken(snapshot)

    def directory(self, label: str) -> Path:
        """A new directory for what ends with the run, which QEMU may write in."""
        return self._maker.forge.directory(label)

    def take(self, snapshot: Snapshot, *, nonce: str = "") -> Lease:
        """A clean machine in the state of `snapshot`, running and repaired; `nonce` is what was in it as a
        proof.

        Raises `RevertError` where none can be given; a machine that could not be repaired is not handed out.
        """
        started = time.monotonic()
        ahead = True
        if lease := self._standbys.take(snapshot):
            self.handed_over += 1
            self._quiet.begin()
        else:
            ahead = False
            lease = self._maker.make(snapshot)
        try:
            self._maker.verify(lease, saved=nonce)
        except BaseException:
            self.discard(lease)
            raise
        self._note(snapshot, time.monotonic() - started, ahead)
        return lease

    def expect(self, coming: Sequence[Snapshot]) -> None:
        """Of which snapshots the next machines will be, in this order."""
        with self._lock:
            self._coming = list(coming)
            self._prepare()

    def expect_return(self, snapshot: Snapshot) -> None:
        """The test that has a machine now may want to go back to `snapshot`: before any other machine."""
        with self._lock:
            self._returns = [snapshot, *(other for other in self._returns if other is not snapshot)]
            self._prepare()

    def returned(self, snapshot: Snapshot) -> None:
        """The test went back to `snapshot`, and may not do so again."""
        with self._lock:
            self._returns = [other for other in self._returns if other is not snapshot]

    def expect_no_return(self, snapshots: Sequence[Snapshot]) -> None:
        """No machine of `snapshots` will be asked for any more; returns when none of them is being made."""
        with self._lock:
            self._returns = [other for other in self._returns if not any(other is one for one in snapshots)]
            self._prepare()
        for snapshot in snapshots:
            self._standbys.leave(snapshot)

    def _prepare(self) -> None:
        self._standbys.expect([*self._returns, *self._coming])

    def renew_proof(self, lease: Lease) -> None:
        """Leave another nonce in a machine that was saved: it is no clone of what was saved."""
        self._maker.verify(lease, saved=lease.nonce)

    def later(self, work: Callable[[], None]) -> None:
        """Do `work` in the background."""
        self._discarders.submit(work)

    def discard(self, lease: Lease) -> None:
        """End a machine in the background."""
        self._discarders.submit(self._end, lease)

    def _end(self, lease: Lease) -> None:
        self._quiet.wait()
        lease.end()

    def close(self) -> None:
        """Wait until all machines have ended, but those that somebody has."""
        with ExitStack() as steps:  # each is taken, whatever another raises
            steps.callback(self._discarders.shutdown, wait=True)
            steps.callback(self._standbys.close)
            steps.callback(self._quiet.end)
