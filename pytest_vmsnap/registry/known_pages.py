"""Pages that the puller of an entry already has: a guest's memory holds much of what is on its disks.

The kernel of the guest keeps what it has read from a disk in memory ("page cache"), in pages of 4 KiB. QEMU
stores a disk's content in clusters of the file, which begin at multiples of a page (qcow2 specification). So
such a page is found by comparing it with the files of the disks.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pytest_vmsnap.store import extents

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096
MOST_PAGES = 1 << 18  # that are remembered: 1 GiB of the disks, some 30 MiB here
READ_BYTES = 1 << 20
_SHIFT = 48  # of a source's number, above an offset


class KnownPages:
    """The pages of the files that were added, by their content; a context manager."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}  # by the hash of a page: the number of its file, and its offset there
        self._descriptors: list[int] = []
        self._open = ExitStack()

    def __enter__(self) -> KnownPages:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, path: Path) -> None:
        """Remember the pages of the file at `path`, which is the next source: 0, 1, 2 and so on."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._open.callback(os.close, descriptor)
        number = len(self._descriptors)
        self._descriptors.append(descriptor)
        zeros = bytes(PAGE)
        for start, end in extents(descriptor):
            for first in range(start, end, READ_BYTES):
                data = os.pread(descriptor, min(READ_BYTES, end - first), first)
                for at in range(0, len(data) - PAGE + 1, PAGE):
                    if len(self._places) == MOST_PAGES:
                        return
                    page = data[at : at + PAGE]
                    if page != zeros:
                        self._places.setdefault(hash(page), number << _SHIFT | first + at)

    def find(self, page: bytes) -> tuple[int, int] | None:
        """The source that has `page`, and its offset there; None if none has it."""
        place = self._places.get(hash(page))
        if place is None:
            return None
        source, offset = place >> _SHIFT, place & (1 << _SHIFT) - 1
        return (source, offset) if os.pread(self._descriptors[source], PAGE, offset) == page else None
