"""How many standbys this host may have."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock, Timeout

from pytest_vmsnap.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 3  # more do not help: the limit is the processor time that making each one takes
OWN_MIB = 160  # of a QEMU that has run a little: nearly all of it is translated code
OWN_SHARE = 0.15  # of the guest's memory: what it has written since the save
FREE_SHARE = 0.1  # of the host's memory: what is left to others


class Slot(Protocol):
    """The right to have one standby."""

    def release(self) -> None:
        """Give the slot back; a second call does nothing."""


class Budget(Protocol):
    """How many standbys this process may have: `share`, as of the last `look`.

    `is_shared` says whether that depends on other runs.
    """

    share: int
    is_shared: bool

    def look(self) -> None:
        """Update `share`; may take some milliseconds."""

    def slot(self) -> Slot | None:
        """Take a slot for one more standby; None if there is none. May take some milliseconds."""


class _Free:
    """A slot that no other run competes for."""

    def release(self) -> None:
        pass


class OwnBudget:
    """A number that the user has set: it applies to this process, whatever other runs do."""

    is_shared = False

    def __init__(self, number: int) -> None:
        self.share = number

    def look(self) -> None:
        pass

    def slot(self) -> Slot:
        return _Free()


class HostBudget:
    """What the host can make ahead: one standby for each processor, shared by all runs with the same store.

    Each slot is a lock in the directory `locks`, which the kernel releases when its holder dies. `runs` returns
    how many runs take slots, this one included. A run takes no more than its equal part of the slots, or one if
    there are more runs than slots; and at most three, because more do not help.
    """

    is_shared = True

    def __init__(self, locks: Path, runs: Callable[[], int]) -> None:
        self._locks = locks
        self._runs = runs
        self._number = len(os.sched_getaffinity(0))
        self._lock = threading.Lock()
        self._held: set[_HeldSlot] = set()
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
                held = _HeldSlot(lock, self._held)
                self._held.add(held)
                return held
            return None


class _HeldSlot:
    """A slot of `HostBudget`."""

    def __init__(self, lock: FileLock, among: set[_HeldSlot]) -> None:
        self._lock = lock
        self._among = among

    def release(self) -> None:
        self._among.discard(self)
        self._lock.release()


def most_standbys(wanted: int | None) -> int:
    """How many standbys a run may have if it is alone: `wanted`, or what this process's processors can make."""
    return share(len(os.sched_getaffinity(0)), 1) if wanted is None else wanted


def share(number: int, runs: int) -> int:
    """How many of the host's `number` slots each of `runs` runs may take."""
    return max(1, min(MOST, number // max(1, runs)))


def expect_memory(machines: int, memory: int, meminfo: Path = Path("/proc/meminfo")) -> None:
    """Raise `HostError` if the host can never hold so many machines with `memory` MiB in all."""
    found = _meminfo(meminfo)["MemTotal"]
    needed = memory + machines * OWN_MIB
    if needed > found:
        raise HostError(
            f"the cluster's {machines} machines need {needed} MiB of memory, and this host has {found} MiB",
            hint="give them less: memory in the cluster's machines, or vmsnap_memory",
        )


def has_room(memory: int, meminfo: Path = Path("/proc/meminfo")) -> bool:
    """Whether the host has free memory for one more machine of `memory` MiB (proc(5), ``MemAvailable``)."""
    found = _meminfo(meminfo)
    return found["MemAvailable"] - OWN_MIB - OWN_SHARE * memory > FREE_SHARE * found["MemTotal"]


def _meminfo(path: Path) -> dict[str, int]:
    """What proc(5) ``meminfo`` says, in MiB."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) >> 10 for words in lines if len(words) > 1}
