"""The memory of a snapshot: a file that its clones map, whole from the start or made from another's."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pytest_vmsnap.errors import StoreFull
from pytest_vmsnap.fork import files
from pytest_vmsnap.host import MORE_ROOM
from pytest_vmsnap.store import extents, outline, share_blocks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_vmsnap.store import Fingerprint

    Build = Callable[[Path], None]
    Provide = Callable[[Build], Path]

COPY_CHUNK = 64 << 20


class SavedMemory(Protocol):
    """The memory of a snapshot."""

    def file(self) -> Fingerprint:
        """The memory file, made if it is not there; raises `StoreDamaged` where it is not what was saved."""

    def expect_untouched(self) -> None:
        """Raise `StoreDamaged` where the memory file, if it is there, has another size or time: one stat(2)."""

    @property
    def bottom(self) -> Fingerprint | None:
        """The memory file that all the others below this one were made from, None where there is none."""

    def drop(self) -> None:
        """Remove the memory file, if it can be made again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FullMemory:
    """Memory that is a file of its own."""

    fingerprint: Fingerprint

    def file(self) -> Fingerprint:
        self.fingerprint.expect_untouched()
        return self.fingerprint

    def expect_untouched(self) -> None:
        self.fingerprint.expect_untouched()

    @property
    def bottom(self) -> Fingerprint | None:
        return self.fingerprint

    def drop(self) -> None:
        pass


@dataclass(slots=True, kw_only=True)
class LayeredMemory:
    """Memory that is another's but for some pages.

    `below` is that other file, None for memory that was empty; `layers` are directories with a file for each
    run of pages, named by its offset in bytes (hexadecimal), a later one over those before; `size` is in bytes.
    `provide` takes what fills a directory, and returns the directory when that has been done: it stays, and the
    file ``ram`` in it is the memory.
    """

    below: SavedMemory | None
    layers: tuple[Path, ...]
    size: int
    provide: Provide
    _made: Fingerprint | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def file(self) -> Fingerprint:
        with self._lock:
            if self._made is None:
                self._made = outline(self.provide(self.build) / "ram")
        self._made.expect_untouched()
        return self._made

    def expect_untouched(self) -> None:
        if made := self._made:
            made.expect_untouched()

    @property
    def bottom(self) -> Fingerprint | None:
        return self.below.bottom if self.below else None

    def drop(self) -> None:
        with self._lock:
            made, self._made = self._made, None
            if made:
                made.path.unlink(missing_ok=True)

    def build(self, directory: Path) -> None:
        """Make the memory file, ``ram``, in `directory`."""
        target = files.create(directory / "ram", size=self.size)
        try:
            if self.below:
                copy_sparse(self.below.file().path, target)
            for pages in self.layers:
                write_pages(pages, target)
        except BaseException:
            target.unlink()
            raise


def filled_in(directory: Path) -> Provide:
    """A way to have a directory filled: this one. It raises `StoreFull` where there is no space."""

    def provide(build: Build) -> Path:
        try:
            build(directory)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                free = files.free_mib(directory)
                raise StoreFull(
                    f"the memory of a snapshot has no room in {directory} ({free} MiB free)",
                    hint=MORE_ROOM,
                ) from error
            raise
        return directory

    return provide


def pages_size(pages: Path) -> int:
    """How many bytes of memory the runs in the directory `pages` are."""
    return sum(path.stat().st_size for path in pages.iterdir())


def copy_sparse(source: Path, target: Path) -> None:
    """Make the file `target` what `source` is: sharing blocks where the file system can."""
    with source.open("rb") as reading, target.open("r+b") as writing:
        try:
            share_blocks(reading.fileno(), writing.fileno())
        except OSError:  # no such file system, or two of them
            for start, end in extents(reading.fileno()):
                _copy(reading.fileno(), writing.fileno(), start, end)


def write_pages(pages: Path, target: Path) -> None:
    """Write each run of pages in the directory `pages` to its place in the file `target`."""
    with target.open("r+b") as writing:
        for path in sorted(pages.iterdir()):
            start = int(path.name, 16)
            with path.open("rb") as reading:
                _copy(reading.fileno(), writing.fileno(), 0, path.stat().st_size, shift=start)


def _copy(source: int, target: int, start: int, end: int, *, shift: int = 0) -> None:
    """Copy bytes from `start` to `end`, within the kernel (copy_file_range(2))."""
    while start < end:
        copied = os.copy_file_range(source, target, min(COPY_CHUNK, end - start), start, start + shift)
        if not copied:
            raise OSError(f"the file ends at {start} bytes, before {end}")
        start += copied
