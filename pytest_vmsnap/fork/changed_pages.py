"""Pages of a machine's memory that a clone loads with its devices, on top of the memory file that it maps.

So clones of different snapshots share the pages of one file: Linux shares a file's pages between processes, but
not the pages of two files with the same content.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.fork.ram_section import PAGE_SIZE, insert
from pytest_vmsnap.host import MAIN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedPages:
    """The pages of `layers` that differ from the file `mapped`; a later layer overrides the ones before it.

    `size` is that of the memory in bytes.
    """

    size: int
    mapped: Path
    layers: tuple[Path, ...]

    @property
    def name(self) -> str:
        return MAIN_MEMORY

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """The pages, each with its offset in bytes."""
        runs = [path for layer in self.layers for path in layer.iterdir()]
        found: dict[int, tuple[int, int]] = {}  # by offset: the number of a run, and the offset in its file
        for number, run in enumerate(runs):
            start = int(run.name, 16)
            found.update({start + at: (number, at) for at in range(0, run.stat().st_size, PAGE_SIZE)})
        with ExitStack() as stack:
            mapped = stack.enter_context(self.mapped.open("rb")).fileno()
            last, descriptor = -1, -1
            for offset, (number, at) in sorted(found.items()):
                if number != last:
                    reading = stack.enter_context(runs[number].open("rb"))
                    last, descriptor = number, reading.fileno()
                page = os.pread(descriptor, PAGE_SIZE, at)
                if page != os.pread(mapped, PAGE_SIZE, offset):
                    yield offset, page


def stream_with(devices: Path, pages: ChangedPages, target: Path) -> None:
    """Write the device state `devices` with `pages` to the new file `target`."""
    shutil.copyfile(devices, target)
    try:
        insert(target, [pages])
    except BaseException:
        target.unlink()
        raise
