"""Which pages of a memory file's private mapping are the machine's own, and what is in them.

proc(5), ``/proc/PID/pagemap``, and Linux, Documentation/admin-guide/mm/pagemap.rst: of each page's 64 bits, bit
63 says that it is present, 62 that it is swapped, 61 that it is the file's. Reading these takes the same user,
or root; reading the memory itself (``/proc/PID/mem``) takes what a debugger may, which Yama denies to users on
some distributions (ptrace(2)).
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from io import RawIOBase

PAGE = 4096  # of x86
# Runs closer than that are taken as one. Measured, of 29 MiB in all: with 4 a save took three times as long,
# with 16 half as long again: a file for each costs more than the bytes between.
GAP_PAGES = 64
CHUNK = 4 << 20
PRESENT, SWAPPED, OF_FILE = 0x80, 0x40, 0x20  # in the highest byte
OWN = bytes(1 if bits & (PRESENT | SWAPPED) and not bits & OF_FILE else 0 for bits in range(256))
RUNS = re.compile(rb"\x01+(?:\x00{1,%d}\x01+)*" % GAP_PAGES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Pages behind one another: `offset` in the memory file, and `length`, in bytes."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """Where the next one could begin."""
        return self.offset + self.length


def own_runs(pid: int, memory: Path) -> list[Run]:
    """The pages that the process has of its own in its private mapping of the file `memory`, in order.

    Pages of the file's between two that are close may be among them. Raises `OSError` where this user may not
    look.
    """
    return sorted(_runs(pid, memory), key=lambda run: run.offset)


def copy_runs(pid: int, memory: Path, runs: Iterable[Run], target: Callable[[Run], Path]) -> None:
    """Write what the process has in `runs` of its mapping of the file `memory` to the file `target` of each.

    Raises `PermissionError`, before anything is written, where this user may not look, `ProcessLookupError`
    where the process ends meanwhile.
    """
    mappings = list(_mappings(pid, memory))
    buffer = memoryview(bytearray(CHUNK))
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as reading:
        for run in runs:
            start, _, first = next(one for one in mappings if one[2] <= run.offset < one[2] + one[1] - one[0])
            reading.seek(start + run.offset - first)
            with target(run).open("xb", buffering=0) as writing:
                rest = run.length
                while rest:
                    if not (count := reading.readinto(buffer[: min(rest, CHUNK)])):
                        raise ProcessLookupError(errno.ESRCH, f"process {pid} ended while its memory was read")
                    writing.write(buffer[:count])
                    rest -= count


def _runs(pid: int, memory: Path) -> Iterator[Run]:
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        for start, end, offset in _mappings(pid, memory):
            pagemap.seek(start // PAGE * 8)
            entries = _read(pagemap, (end - start) // PAGE * 8)
            for found in RUNS.finditer(entries[7::8].translate(OWN)):
                first, last = found.span()
                yield Run(offset=offset + first * PAGE, length=(last - first) * PAGE)


def _read(file: RawIOBase, length: int) -> bytes:
    parts = []
    while length:
        if not (part := file.read(length)):
            raise ProcessLookupError(errno.ESRCH, "its process has ended")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _mappings(pid: int, memory: Path) -> Iterator[tuple[int, int, int]]:
    """Start and end of each stretch of memory that maps the file, and where in the file it begins (proc(5))."""
    names = {str(memory), str(memory.resolve())}
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, _permissions, offset, _device, _inode, *rest = line.split(maxsplit=5)
        if rest and rest[0].removesuffix(" (deleted)") in names:
            start, _, end = span.partition("-")
            yield int(start, 16), int(end, 16), int(offset, 16)
