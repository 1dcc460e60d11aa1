"""Clones made ahead, in the background."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import VmsnapError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_vmsnap.fork import Saved
    from pytest_vmsnap.pool.background_pause import BackgroundPause
    from pytest_vmsnap.pool.budget import Budget, Slot
    from pytest_vmsnap.pool.cluster_lease import ClusterLease
    from pytest_vmsnap.pool.lease import Lease, Provisioner

log = logging.getLogger("pytest_vmsnap.pool")

# Then a standby is paused. A running one takes 0.5 to 1 % of a processor (tests/bench/idle.py), and its journal
# stays as it was; the hand-over of a paused one takes some 70 ms instead of 6.
RUNS_SECONDS = 30.0
LOOK_SECONDS = 2.0
MOST_FAILURES = 3  # in a row, for one snapshot: after that the test makes the clone and gets the error


class Standby:
    """A clone that waits for its test: it runs for its first seconds, then it is paused."""

    def __init__(self, lease: Lease | ClusterLease, snapshot: Saved, slot: Slot) -> None:
        self.lease = lease
        self.slot = slot
        self.snapshot = snapshot
        self.due = time.monotonic() + RUNS_SECONDS
        self._lock = threading.Lock()
        self._paused = False
        self._taken = False

    def pause(self) -> None:
        """Pause it, unless it was taken meanwhile."""
        with self._lock:
            self.due = math.inf
            if not self._taken:
                self.lease.suspend()
                self._paused = True

    def ping(self) -> None:
        """Have it answer before its hand-over, unless it is paused."""
        if self._lock.acquire(blocking=False):
            try:
                if not self._paused:
                    self.lease.ping()
            finally:
                self._lock.release()

    def hand_over(self, provisioner: Provisioner) -> Lease | ClusterLease:
        """Return the machine, running and proved to answer. Raises `VmsnapError` if it does not answer."""
        with self._lock:
            self._taken = True
            if self._paused:
                self.lease.resume()
            provisioner.check(self.lease)
            if self._paused:
                provisioner.set_clock(self.lease)
        return self.lease


class Standbys:
    """Standbys of the snapshots that tests will ask for, at most as many as the `budget` allows.

    `has_room` says whether the host has memory for one more machine of that many MiB. Standbys that are no
    longer wanted go to `discard`. Making a standby waits for `pause`.
    """

    def __init__(
        self,
        provisioner: Provisioner,
        *,
        budget: Budget,
        has_room: Callable[[int], bool],
        discard: Callable[[Lease | ClusterLease], None],
        pause: BackgroundPause,
    ) -> None:
        self._provisioner = provisioner
        self._budget = budget
        self._most = most = budget.share
        self._has_room = has_room
        self._discard = discard
        self._pause = pause
        self._changed = threading.Condition()
        self._wanted: list[Saved] = []
        self._waiting: list[Standby] = []
        self._on_the_way: list[Saved] = []
        self._failures: Counter[int] = Counter()  # by the snapshot's id()
        self._refused = False  # there was no slot or no memory for a wanted standby
        self._spent: list[Slot] = []  # of standbys that were taken, to be released
        self._looked = time.monotonic()
        self._closed = False
        self._makers = ThreadPoolExecutor(max(1, most), thread_name_prefix="vmsnap-standby")
        self._watcher = threading.Thread(target=self._watch, name="vmsnap-standby-rest", daemon=True)
        if most:
            self._watcher.start()

    def expect(self, coming: Sequence[Saved]) -> None:
        """Set the snapshots of the next machines, in order; missing standbys are made."""
        with self._changed:
            if not self._closed:
                self._wanted = list(coming[: self._most])
                self._balance()

    def ping(self, snapshot: Saved) -> None:
        """Have the standby that `take` will return answer before its hand-over."""
        with self._changed:
            found = next((standby for standby in self._waiting if standby.snapshot is snapshot), None)
        if found:
            try:
                found.ping()
            except VmsnapError as error:  # the hand-over finds out
                log.info("%s does not answer: %s", found.lease.name, error)

    def take(self, snapshot: Saved) -> Lease | ClusterLease | None:
        """Return a standby that waits or is being made; None if there is none.

        Discards a broken standby and takes the next one.
        """
        while standby := self._next(snapshot):
            try:
                return standby.hand_over(self._provisioner)
            except VmsnapError as error:
                log.warning("the standby %s is broken and will be replaced: %s", standby.lease.name, error)
                self._discard(standby.lease)
            except BaseException:
                self._discard(standby.lease)
                raise
        return None

    def wait_until_gone(self, snapshot: Saved) -> None:
        """Return when no standby of `snapshot`, which is no longer wanted, waits or is being made."""
        with self._changed:
            while any(other is snapshot for other in self._on_the_way):
                self._pause.end()
                self._changed.wait()
            self._balance()

    def close(self) -> None:
        """Discard the standbys that wait; returns when none is being made."""
        with self._changed:
            self._closed = True
            self._wanted.clear()
            self._balance()
            self._changed.notify_all()
        self._makers.shutdown(wait=True, cancel_futures=True)
        with self._changed:
            self._on_the_way.clear()  # those cancelled before they began: somebody may wait for one
            self._changed.notify_all()
        self._release()
        if self._most:
            self._watcher.join()

    def _next(self, snapshot: Saved) -> Standby | None:
        with self._changed:
            while True:
                for standby in self._waiting:
                    if standby.snapshot is snapshot:
                        self._waiting.remove(standby)
                        self._spent.append(standby.slot)
                        return standby
                if not any(other is snapshot for other in self._on_the_way):
                    return None
                self._pause.end()
                self._changed.wait()

    def _balance(self) -> None:
        """Start making what is missing, and drop what is no longer wanted; the caller holds the lock."""
        there = [id(snapshot) for snapshot in self._on_the_way]
        missing = []
        kept = []
        spare = list(self._waiting)
        most = min(self._most, self._budget.share)
        for snapshot in self._wanted[:most]:
            found = next((standby for standby in spare if standby.snapshot is snapshot), None)
            if found:
                spare.remove(found)
                kept.append(found)
            elif id(snapshot) in there:
                there.remove(id(snapshot))
            else:
                missing.append(snapshot)
        self._waiting = kept
        for standby in spare:
            self._drop(standby)
        for snapshot in missing:
            full = len(self._waiting) + len(self._on_the_way) >= most
            if full or self._failures[id(snapshot)] >= MOST_FAILURES:
                continue
            self._on_the_way.append(snapshot)
            self._makers.submit(self._make, snapshot)
        if self._spent and not self._on_the_way and not self._closed:
            self._makers.submit(self._release)

    def _drop(self, standby: Standby) -> None:
        standby.slot.release()
        self._discard(standby.lease)

    def _release(self) -> None:
        """Release the slots of the standbys that were taken, so that others can have them."""
        self._pause.wait()
        with self._changed:
            while self._spent:
                self._spent.pop().release()

    def _make(self, snapshot: Saved) -> None:
        standby, slot = None, None
        try:
            self._release()
            if not self._closed and self._has_room(snapshot.memory_mib):
                slot = self._budget.slot()
            if slot:
                standby = Standby(self._provisioner.make(snapshot), snapshot, slot)
        except (VmsnapError, OSError) as error:
            log.warning("cannot make a standby: %s", error)
        finally:
            with self._changed:
                self._on_the_way.remove(snapshot)
                self._refused = slot is None
                if standby and self._closed:
                    self._drop(standby)
                elif standby:
                    self._failures[id(snapshot)] = 0
                    self._waiting.append(standby)
                elif slot:
                    self._failures[id(snapshot)] += 1
                    slot.release()
                self._changed.notify_all()

    def _watch(self) -> None:
        """Pause standbys that have run for long enough, and keep to our share of the budget."""
        while True:
            with self._changed:
                if self._closed:
                    return
                now = time.monotonic()
                due = [standby for standby in self._waiting if standby.due <= now]
                if not due:
                    next_due = min((standby.due for standby in self._waiting), default=math.inf)
                    next_due = min(next_due, self._next_look())
                    if next_due > now:
                        self._changed.wait(None if next_due == math.inf else next_due - now)
            for standby in due:
                try:
                    standby.pause()
                except VmsnapError as error:  # the hand-over finds out
                    log.info("%s cannot be paused: %s", standby.lease.name, error)
            if self._next_look() <= time.monotonic():
                self._look()

    def _next_look(self) -> float:
        """When to look at the budget again: never, if that cannot change what we may have."""
        if not self._budget.is_shared or not (self._refused or len(self._waiting) > 1):
            return math.inf
        return self._looked + LOOK_SECONDS

    def _look(self) -> None:
        """Drop what is other runs' share by now, and retry what was refused: a test may take long."""
        try:
            self._budget.look()
        except OSError as error:
            log.warning("cannot find out how many standbys other runs have: %s", error)
        with self._changed:
            self._looked = time.monotonic()
            self._refused = False
            if not self._closed:
                self._balance()
