"""The memory of a snapshot: a file that its clones map, complete from the start or built from another one."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pytest_vmsnap.errors import StoreFull
from pytest_vmsnap.fork import files
from pytest_vmsnap.fork.changed_pages import stream_with
from pytest_vmsnap.host import MORE_ROOM
from pytest_vmsnap.store import extents, share_blocks, stat_fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pytest_vmsnap.fork.changed_pages import ChangedPages
    from pytest_vmsnap.store import Fingerprint

    Build = Callable[[Path], None]
    Provide = Callable[[Build], Path]

COPY_CHUNK = 64 << 20
MOST_LOADED = 64 << 20  # bytes of pages that a clone loads, rather than maps


class SavedMemory(Protocol):
    """The memory of a snapshot."""

    def file(self) -> Fingerprint:
        """The memory file, built if it is missing; raises `StoreDamaged` if it is not what was saved."""

    def expect_untouched(self) -> None:
        """Raise `StoreDamaged` if the memory file, once built, has another size or time: one stat(2)."""

    @property
    def bottom(self) -> Fingerprint | None:
        """The complete memory file below all layers; None if the lowest layer is on empty memory."""

    def mapping(self) -> tuple[SavedMemory, tuple[Path, ...]]:
        """The memory whose file clones map, and the layers whose pages each loads into its own mapping."""

    def drop(self) -> None:
        """Remove the memory file, if it can be built again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FullMemory:
    """Memory that is a complete file from the start."""

    fingerprint: Fingerprint

    def file(self) -> Fingerprint:
        self.fingerprint.expect_untouched()
        return self.fingerprint

    def expect_untouched(self) -> None:
        self.fingerprint.expect_untouched()

    @property
    def bottom(self) -> Fingerprint | None:
        return self.fingerprint

    def mapping(self) -> tuple[SavedMemory, tuple[Path, ...]]:
        return self, ()

    def drop(self) -> None:
        pass


@dataclass(slots=True, kw_only=True)
class LayeredMemory:
    """Memory that is another snapshot's memory with some pages replaced.

    `below` is that other memory, None for memory that was empty. `layers` are directories with a file for each
    run of pages, named by its offset in bytes (hexadecimal); a later layer overrides the ones before it. `size`
    is in bytes. `provide` takes a function that fills a directory, and returns the filled directory. The
    directory stays, and the file ``ram`` in it is the memory. With `loads`, clones map the memory file below
    and load the layers, unless those have more than `MOST_LOADED` bytes: so machines of a cluster that start
    from the same state share its pages.
    """

    below: SavedMemory | None
    layers: tuple[Path, ...]
    size: int
    provide: Provide
    loads: bool = False
    _made: Fingerprint | None = None
    _stream: Path | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def file(self) -> Fingerprint:
        with self._lock:
            if self._made is None:
                self._made = stat_fingerprint(self.provide(self.build) / "ram")
        self._made.expect_untouched()
        return self._made

    def expect_untouched(self) -> None:
        if made := self._made:
            made.expect_untouched()
        elif self.loads and self.below:
            self.below.expect_untouched()

    @property
    def bottom(self) -> Fingerprint | None:
        return self.below.bottom if self.below else None

    def mapping(self) -> tuple[SavedMemory, tuple[Path, ...]]:
        layers: tuple[Path, ...] = ()
        memory: SavedMemory = self
        while isinstance(memory, LayeredMemory) and memory.loads and memory.below:
            layers = (*memory.layers, *layers)
            if distinct_size(layers) > MOST_LOADED:
                return self, ()
            memory = memory.below
        return memory, layers

    def stream(self, devices: Path, pages: ChangedPages, directory: Callable[[], Path]) -> Path:
        """The device state `devices` with `pages`, for clones that load them: written once, in `directory`."""
        with self._lock:
            if self._stream is None:
                target = directory() / devices.name
                stream_with(devices, pages, target)
                self._stream = target
        return self._stream

    def drop(self) -> None:
        with self._lock:
            made, self._made = self._made, None
            stream, self._stream = self._stream, None
            if made:
                made.path.unlink(missing_ok=True)
            if stream:
                files.remove(stream.parent)

    def build(self, directory: Path) -> None:
        """Build the memory file, ``ram``, in `directory`."""
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
    """A `Provide` that fills `directory` itself. It raises `StoreFull` if there is no space."""

    def provide(build: Build) -> Path:
        try:
            build(directory)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                free = files.free_mib(directory)
                raise StoreFull(
                    f"not enough space for the memory of a snapshot in {directory} ({free} MiB free)",
                    hint=MORE_ROOM,
                ) from error
            raise
        return directory

    return provide


def distinct_size(layers: Iterable[Path]) -> int:
    """The size in bytes of the pages that `layers` have together; a page in several of them counts once."""
    ranges = sorted(
        (start := int(path.name, 16), start + path.stat().st_size)
        for layer in layers
        for path in layer.iterdir()
    )
    total, covered = 0, 0
    for start, end in ranges:
        total += max(0, end - max(start, covered))
        covered = max(covered, end)
    return total


def copy_sparse(source: Path, target: Path) -> None:
    """Copy the content of `source` to the file `target`; they share blocks if the file system can do that."""
    with source.open("rb") as reading, target.open("r+b") as writing:
        try:
            share_blocks(reading.fileno(), writing.fileno())
        except OSError:  # the file system cannot, or they are on two
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
    """Copy the bytes `start` to `end`, moved by `shift`, inside the kernel (copy_file_range(2))."""
    while start < end:
        copied = os.copy_file_range(source, target, min(COPY_CHUNK, end - start), start, start + shift)
        if not copied:
            raise OSError(f"the file ends at {start} bytes, before {end}")
        start += copied
