"""Which machine a test gets, a standby or one made on demand, and how machines end."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pytest_vmsnap.pool.background_pause import BackgroundPause
from pytest_vmsnap.pool.budget import has_room
from pytest_vmsnap.pool.standby import Standbys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_vmsnap.fork import Saved
    from pytest_vmsnap.pool.budget import Budget
    from pytest_vmsnap.pool.cluster_lease import ClusterLease
    from pytest_vmsnap.pool.lease import Lease, Provisioner

DISCARDERS = 16  # ending a domain is mostly waiting: up to 2 s if process 1 reaps slowly, so 4 fell behind


class Pool:
    """Hands clones over, ends them in the background, and makes as many standbys as `budget` allows.

    `note` is called for each machine that is handed over: with its snapshot, the seconds that the test waited
    for it, and whether it was a standby. `handed_over` counts the standbys that were handed over, `most_ahead`
    is how many there may be.
    """

    def __init__(
        self,
        provisioner: Provisioner,
        *,
        budget: Budget,
        note: Callable[[Saved, float, bool], None] = lambda _snapshot, _seconds, _ahead: None,
    ) -> None:
        self.handed_over = 0
        self._note = note
        self._lock = threading.Lock()  # for what is expected: tests and background threads both set it
        self._coming: list[Saved] = []
        self._returns: list[Saved] = []
        self._provisioner = provisioner
        self._discarders = ThreadPoolExecutor(DISCARDERS, thread_name_prefix="vmsnap-discard")
        self._pause = BackgroundPause()
        self.most_ahead = budget.share
        self._standbys = Standbys(
            provisioner, budget=budget, has_room=has_room, discard=self.discard, pause=self._pause
        )

    def ping_standby(self, snapshot: Saved | None) -> None:
        """Have the standby of `snapshot` answer ahead, because a test takes it soon; None does nothing."""
        if snapshot:
            self._pause.begin()
            self._standbys.ping(snapshot)

    def directory(self, label: str) -> Path:
        """Create a directory that is removed with the run, and let QEMU write in it."""
        return self._provisioner.factory.directory(label)

    def take(self, snapshot: Saved, *, nonce: str = "") -> Lease | ClusterLease:
        """Return a clean machine in the state of `snapshot`, running and repaired.

        `nonce` is the proof that was in it when it was saved. Raises `RevertError` if none can be given or it
        cannot be repaired, `StoreDamaged` if the snapshot is not what was saved.
        """
        started = time.monotonic()
        lease = self._standbys.take(snapshot)
        ahead = lease is not None
        if lease is None:
            lease = self._provisioner.make(snapshot)
        try:
            if ahead:
                self.handed_over += 1
                self._pause.begin()
            self._provisioner.verify(lease, saved=nonce)
            self._note(snapshot, time.monotonic() - started, ahead)
        except BaseException:
            self.discard(lease)
            raise
        return lease

    def expect(self, coming: Sequence[Saved]) -> None:
        """Set the snapshots of the next machines, in order; standbys are made of them."""
        with self._lock:
            self._coming = list(coming)
            self._prepare()

    def prepare_revert(self, snapshot: Saved) -> None:
        """Make a standby of `snapshot` before any other: the test that runs may go back to it."""
        with self._lock:
            self._returns = [snapshot, *(other for other in self._returns if other is not snapshot)]
            self._prepare()

    def returned(self, snapshot: Saved) -> None:
        """The test went back to `snapshot`: make no further standby for that."""
        with self._lock:
            self._returns = [other for other in self._returns if other is not snapshot]

    def cancel_prepared(self, snapshots: Sequence[Saved]) -> None:
        """Make no more standbys of `snapshots`; returns when none of them is being made."""
        with self._lock:
            self._returns = [other for other in self._returns if not any(other is one for one in snapshots)]
            self._prepare()
        for snapshot in snapshots:
            self._standbys.wait_until_gone(snapshot)

    def _prepare(self) -> None:
        self._standbys.expect([*self._returns, *self._coming])

    def renew_proof(self, lease: Lease | ClusterLease) -> None:
        """Leave a new nonce in a machine that was saved, because only its clones keep the saved one."""
        self._provisioner.verify(lease, saved=lease.nonce)

    def run_in_background(self, work: Callable[[], None]) -> None:
        """Run `work` in the background."""
        self._discarders.submit(work)

    def discard(self, lease: Lease | ClusterLease) -> None:
        """End a machine in the background."""
        self._discarders.submit(self._end, lease)

    def _end(self, lease: Lease | ClusterLease) -> None:
        self._pause.wait()
        lease.end()

    def close(self) -> None:
        """Wait until all machines have ended, except those that are in use."""
        with ExitStack() as steps:  # each step runs, even if another raises
            steps.callback(self._discarders.shutdown, wait=True)
            steps.callback(self._standbys.close)
            steps.callback(self._pause.end)
