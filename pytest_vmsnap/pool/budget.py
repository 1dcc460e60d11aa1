"""How many machines may wait on this host."""

from __future__ import annotations

import os
from pathlib import Path

MOST = 3  # more help nobody: what limits is the processors' time that each one's making takes
OWN_MIB = 160  # of a QEMU that has run a little: nearly all of it the code that it has translated
OWN_SHARE = 0.15  # of the guest's memory, which it has written since it was saved
FREE_SHARE = 0.1  # of the host's memory, which is left to others


def most_standbys(wanted: int | None) -> int:
    """How many: `wanted`, or what the processors of this process can make."""
    if wanted is not None:
        return wanted
    return max(1, min(MOST, len(os.sched_getaffinity(0))))


def has_room(memory: int, meminfo: Path = Path("/proc/meminfo")) -> bool:
    """Whether the host's free memory holds one more machine of `memory` MiB (proc(5), ``MemAvailable``)."""
    lines = (line.split() for line in meminfo.read_text().splitlines())
    found = {words[0].rstrip(":"): int(words[1]) >> 10 for words in lines if len(words) > 1}
    return found["MemAvailable"] - OWN_MIB - OWN_SHARE * memory > FREE_SHARE * found["MemTotal"]
