"""Clones made ahead of their need, in the background."""

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

    from pytest_vmsnap.fork import Snapshot
    from pytest_vmsnap.pool.budget import Budget, Slot
    from pytest_vmsnap.pool.lease import Lease, Maker
    from pytest_vmsnap.pool.quiet import Quiet

log = logging.getLogger("pytest_vmsnap.pool")

# Until one that waits is paused. One that runs takes 0.5 to 1 % of a processor (tests/bench/idle.py), and its
# journal stays as it was; one that was paused is handed over in some 70 ms in place of 6.
RUNS_SECONDS = 30.0
LOOK_SECONDS = 2.0
MOST_FAILURES = 3  # in a row, of one snapshot: then it is left to who asks, who gets the error


class Standby:
    """A machine that waits: it runs for its first seconds, and stands still after that."""

    def __init__(self, lease: Lease, snapshot: Snapshot, slot: Slot) -> None:
        self.lease = lease
        self.slot = slot
        self.snapshot = snapshot
        self.due = time.monotonic() + RUNS_SECONDS
        self._lock = threading.Lock()
        self._rests = False
        self._taken = False

    def rest(self) -> None:
        """Let it stand still, if nobody has taken it meanwhile."""
        with self._lock:
            self.due = math.inf
            if not self._taken:
                self.lease.clone.domain.suspend()
                self._rests = True

    def awaken(self) -> None:
        """Have it answer ahead of its hand-over."""
        if self._lock.acquire(blocking=False):
            try:
                if not self._rests:
                    self.lease.channel.nudge()
            finally:
                self._lock.release()

    def hand_over(self, maker: Maker) -> Lease:
        """The machine, awake and proved to answer. Raises `VmsnapError` where it does not."""
        with self._lock:
            self._taken = True
            if self._rests:
                self.lease.clone.domain.resume()
            maker.check(self.lease)
            if self._rests:
                maker.set_clock(self.lease)
        return self.lease


class Standbys:
    """At most as many machines that wait as the `budget` allows, of the snapshots that will be asked for.

    `has_room` tells whether the host's memory holds one more of so many MiB. What is not wanted any
    more goes to `discard`. What is made waits for `quiet`.
    """

    def __init__(
        self,
        maker: Maker,
        *,
        budget: Budget,
        has_room: Callable[[int], bool],
        discard: Callable[[Lease], None],
        quiet: Quiet,
    ) -> None:
        self._maker = maker
        self._budget = budget
        self._most = most = budget.share
        self._has_room = has_room
        self._discard = discard
        self._quiet = quiet
        self._changed = threading.Condition()
        self._wanted: list[Snapshot] = []
        self._waiting: list[Standby] = []
        self._on_the_way: list[Snapshot] = []
        self._failures: Counter[int] = Counter()  # by the snapshot's id()
        self._refused = False  # the host has no slot or no memory for one that is wanted
        self._spent: list[Slot] = []  # of what was taken, to be released
        self._looked = time.monotonic()
        self._closed = False
        self._makers = ThreadPoolExecutor(max(1, most), thread_name_prefix="vmsnap-standby")
        self._watcher = threading.Thread(target=self._watch, name="vmsnap-standby-rest", daemon=True)
        if most:
            self._watcher.start()

    def expect(self, coming: Sequence[Snapshot]) -> None:
        """What the next machines will be asked for, in this order; what is missing is made."""
        with self._changed:
            if not self._closed:
                self._wanted = list(coming[: self._most])
                self._balance()

    def awaken(self, snapshot: Snapshot) -> None:
        """Have the one that `take` will give answer ahead."""
        with self._changed:
            found = next((standby for standby in self._waiting if standby.snapshot is snapshot), None)
        if found:
            try:
                found.awaken()
            except VmsnapError as error:  # it will be found out when it is handed over
                log.info("%s does not wake: %s", found.lease.clone.name, error)

    def take(self, snapshot: Snapshot) -> Lease | None:
        """A machine that waits, or is on the way; None where there is none.

        One that is broken is thrown away, and the next one taken.
        """
        while standby := self._next(snapshot):
            try:
                return standby.hand_over(self._maker)
            except VmsnapError as error:
                log.warning("the standby %s is broken, and replaced: %s", standby.lease.clone.name, error)
                self._discard(standby.lease)
            except BaseException:
                self._discard(standby.lease)
                raise
        return None

    def leave(self, snapshot: Snapshot) -> None:
        """Return when no machine of `snapshot`, which is not wanted any more, waits or is on the way."""
        with self._changed:
            while any(other is snapshot for other in self._on_the_way):
                self._quiet.end()
                self._changed.wait()
            self._balance()

    def close(self) -> None:
        """Discard those that wait; returns when none is on the way."""
        with self._changed:
            self._closed = True
            self._wanted.clear()
            self._balance()
            self._changed.notify_all()
        self._makers.shutdown(wait=True, cancel_futures=True)
        self._release()
        if self._most:
            self._watcher.join()

    def _next(self, snapshot: Snapshot) -> Standby | None:
        with self._changed:
            while True:
                for standby in self._waiting:
                    if standby.snapshot is snapshot:
                        self._waiting.remove(standby)
                        self._spent.append(standby.slot)
                        return standby
                if not any(other is snapshot for other in self._on_the_way):
                    return None
                self._quiet.end()
                self._changed.wait()

    def _balance(self) -> None:
        """Begin to make what is missing, and give up what is not wanted any more; under the lock."""
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
        """Let others have the slots of what was taken."""
        self._quiet.wait()
        with self._changed:
            while self._spent:
                self._spent.pop().release()

    def _make(self, snapshot: Snapshot) -> None:
        standby, slot = None, None
        try:
            self._release()
            if not self._closed and self._has_room(snapshot.spec.memory):
                slot = self._budget.slot()
            if slot:
                standby = Standby(self._maker.make(snapshot), snapshot, slot)
        except (VmsnapError, OSError) as error:
            log.warning("a standby could not be made: %s", error)
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
        """Let those rest that have run for long enough, and keep to our part of the budget."""
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
                    standby.rest()
                except VmsnapError as error:  # it will be found out when it is handed over
                    log.info("%s cannot be paused: %s", standby.lease.clone.name, error)
            if self._next_look() <= time.monotonic():
                self._look()

    def _next_look(self) -> float:
        """When to look at what others have: where that could change what we may have."""
        if not self._budget.is_shared or not (self._refused or len(self._waiting) > 1):
            return math.inf
        return self._looked + LOOK_SECONDS

    def _look(self) -> None:
        """Give up what is others' part by now, and try again for what was refused: a test may take long."""
        try:
            self._budget.look()
        except OSError as error:
            log.warning("what other runs have made ahead cannot be known: %s", error)
        with self._changed:
            self._looked = time.monotonic()
            self._refused = False
            if not self._closed:
                self._balance()
