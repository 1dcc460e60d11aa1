"""Which pages a machine owns in its private mapping of a memory file, and what is in them.

proc(5), ``/proc/PID/pagemap``, and Linux, Documentation/admin-guide/mm/pagemap.rst: of a page's 64 bits, bit 63
means that it is present, 62 that it is swapped, 61 that it belongs to the file. Reading these requires the same
user or root. Reading the memory itself (``/proc/PID/mem``) requires the rights of a debugger, which Yama denies
to users on some distributions (ptrace(2)).
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
# Runs with at most this gap are merged: a file for each costs more than the bytes between. Measured with 29 MiB
# in total: with 4, a save took three times as long; with 16, half as long again.
GAP_PAGES = 64
CHUNK = 4 << 20
PRESENT, SWAPPED, OF_FILE = 0x80, 0x40, 0x20  # in the highest byte
OWN = bytes(1 if bits & (PRESENT | SWAPPED) and not bits & OF_FILE else 0 for bits in range(256))
RUNS = re.compile(rb"\x01+(?:\x00{1,%d}\x01+)*" % GAP_PAGES)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRange:
    """Contiguous pages: their `offset` in the memory file and their `length`, in bytes."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.offset + self.length


def private_ranges(pid: int, memory: Path) -> list[PageRange]:
    """The pages that the process owns in its private mapping of the file `memory`, in order.

    Short gaps between them, with pages of the file, may be included. Raises `OSError` if this user may not see
    them.
    """
    return sorted(_runs(pid, memory), key=lambda page_range: page_range.offset)


def copy_ranges(
    pid: int, memory: Path, ranges: Iterable[PageRange], target: Callable[[PageRange], Path]
) -> None:
    """Copy each of `ranges` from the process's mapping of the file `memory` to the file that `target` returns.

    Raises `PermissionError`, before anything is written, if this user may not read the memory,
    `ProcessLookupError` or `FileNotFoundError` if the process has ended.
    """
    mappings = _mappings(pid, memory)
    buffer = memoryview(bytearray(CHUNK))
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as reading:
        for page_range in ranges:
            start, _, first = next(
                one for one in mappings if one[2] <= page_range.offset < one[2] + one[1] - one[0]
            )
            reading.seek(start + page_range.offset - first)
            with target(page_range).open("xb", buffering=0) as writing:
                rest = page_range.length
                while rest:
                    if not (count := reading.readinto(buffer[: min(rest, CHUNK)])):
                        raise ProcessLookupError(errno.ESRCH, f"process {pid} ended while its memory was read")
                    writing.write(buffer[:count])
                    rest -= count


def _runs(pid: int, memory: Path) -> Iterator[PageRange]:
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        for start, end, offset in _mappings(pid, memory):
            pagemap.seek(start // PAGE * 8)
            entries = _read(pagemap, (end - start) // PAGE * 8)
            for found in RUNS.finditer(entries[7::8].translate(OWN)):
                first, last = found.span()
                yield PageRange(offset=offset + first * PAGE, length=(last - first) * PAGE)


def _read(file: RawIOBase, length: int) -> bytes:
    parts = []
    while length:
        if not (part := file.read(length)):
            raise ProcessLookupError(errno.ESRCH, "its process has ended")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _mappings(pid: int, memory: Path) -> list[tuple[int, int, int]]:
    """Start and end of each mapping of the file, and its offset in the file (proc(5)).

    Raises `FileNotFoundError` if there is none: the file was moved, and what the process owns is not known.
    """
    names = {str(memory), str(memory.resolve())}
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, _permissions, offset, _device, _inode, *rest = line.split(maxsplit=5)
        if rest and rest[0].removesuffix(" (deleted)") in names:
            start, _, end = span.partition("-")
            found.append((int(start, 16), int(end, 16), int(offset, 16)))
    if not found:
        raise FileNotFoundError(errno.ENOENT, f"process {pid} does not show that it has it", str(memory))
    return found
