"""The host's memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.model import Finding, ok, size_text

if TYPE_CHECKING:
    from collections.abc import Callable

MEMINFO = Path("/proc/meminfo")
MORE_MEMORY = "free some, or lower vmsnap_memory"


def memory(machine_mib: int, *, ahead: int, has_room: Callable[[], bool], meminfo: Path = MEMINFO) -> Finding:
    """Check total and available memory (proc(5)) for machines of `machine_mib` MiB.

    `ahead` is the maximum number of standbys; `has_room` returns whether there is room for one now.
    """
    try:
        lines = (line.split() for line in meminfo.read_text().splitlines())
        found = {words[0].rstrip(":"): int(words[1]) >> 10 for words in lines if len(words) > 1}
        total, available = found["MemTotal"], found["MemAvailable"]
    except (OSError, ValueError, KeyError):
        return Finding(name="memory", status="warning", found=f"{meminfo} does not show how much there is")
    words = f"{size_text(total)}, {size_text(available)} available; machines of {size_text(machine_mib)}"
    if available < machine_mib:
        return Finding(name="memory", status="failure", found=words, advice=MORE_MEMORY)
    if ahead and not has_room():
        told = f"{words}: too little to make any ahead, so tests wait for their machines"
        return Finding(name="memory", status="warning", found=told, advice=MORE_MEMORY)
    return ok("memory", f"{words}, up to {ahead} made ahead" if ahead else f"{words}, none made ahead")
