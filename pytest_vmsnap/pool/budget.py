"""How many machines may wait on this host."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 3  # more help nobody: what limits is the processors' time that each one's making takes
OWN_MIB = 160  # of a QEMU that has run a little: nearly all of it the code that it has translated
OWN_SHARE = 0.15  # of the guest's memory, which it has written since it was saved
FREE_SHARE = 0.1  # of the host's memory, which is left to others


class Slot(Protocol):
    """The right to one machine that waits."""

    def release(self) -> None:
        """Give it back; nothing happens the second time."""


class Budget(Protocol):
    """How many machines of this process may wait: `share`, as it was when that was looked at last.

    `is_shared` tells whether it depends on others.
    """

    share: int
    is_shared: bool

    def look(self) -> None:
        """Look at what our share is now; may take some milliseconds."""

    def slot(self) -> Slot | None:
        """The right to one more, None where there is none; may take some milliseconds."""


class _Free:
    """A slot that nobody else could have."""

    def release(self) -> None:
        pass


class OwnBudget:
    """A number that somebody has named: it is this process's, whatever others do."""

    is_shared = False

    def __init__(self, number: int) -> None:
        self.share = number

    def look(self) -> None:
        pass

    def slot(self) -> Slot:
        return _Free()


class HostBudget:
    """What the host can make ahead, one for each processor, shared by all runs over one store.

    Each slot is a lock in the directory `locks`, which the kernel releases when its holder dies. `runs` tells
    how many runs there are that take slots, this one among them: none takes more than its part while there
    are slots for all, and one of its own where there are not. At most three are of use to one run.
    """

    is_shared = True

    def __init__(self, locks: Path, runs: Callable[[], int]) -> None:
        self._locks = locks
        self._runs = runs
        self._number = len(os.sched_getaffinity(0))
        self._lock = threading.Lock()
        self._held: set[_Held] = set()
        self.share = min(MOST, self._number)
        locks.mkdir(exist_ok=True, mode=0o700)

    def look(self) -> None:
        self.share = share(self._number, self._runs())

    def slot(self) -> Slot | None:
        with self._lock:
            self.look()
            if len(self._held) >= self.share:
                return None
            for number in range(self._number):
                lock = FileLock(self._locks / f"{number}.lock", mode=0o600, thread_local=False)
                try:
                    lock.acquire(blocking=False)
                except (Timeout, OSError):
                    continue
                held = _Held(lock, self._held)
                self._held.add(held)
                return held
            return None


class _Held:
    """A slot of the host's."""

    def __init__(self, lock: FileLock, among: set[_Held]) -> None:
        self._lock = lock
        self._among = among

    def release(self) -> None:
        self._among.discard(self)
        self._lock.release()


def most_standbys(wanted: int | None) -> int:
    """How many may wait for a run that is alone: `wanted`, or what the processors of this process can make."""
    return share(len(os.sched_getaffinity(0)), 1) if wanted is None else wanted


def share(number: int, runs: int) -> int:
    """How many of the host's `number` of slots each of so many `runs` may take."""
    return max(1, min(MOST, number // max(1, runs)))


def has_room(memory: int, meminfo: Path = Path("/proc/meminfo")) -> bool:
    """Whether the host's free memory holds one more machine of `memory` MiB (proc(5), ``MemAvailable``)."""
    lines = (line.split() for line in meminfo.read_text().splitlines())
    found = {words[0].rstrip(":"): int(words[1]) >> 10 for words in lines if len(words) > 1}
    return found["MemAvailable"] - OWN_MIB - OWN_SHARE * memory > FREE_SHARE * found["MemTotal"]
