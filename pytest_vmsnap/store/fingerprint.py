"""What a file was when it was saved, and proof that it is that still."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import StoreDamaged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What a file was when it was saved: size in bytes, time of its last change (ns), checksum of its data.

    The checksum is None where it was not taken.
    """

    path: Path
    size: int
    changed: int
    checksum: int | None

    def expect_untouched(self) -> None:
        """Raise `StoreDamaged` where size or time differ, or it is gone; costs one stat(2)."""
        found = self._found()
        if (found.st_size, found.st_mtime_ns) != (self.size, self.changed):
            raise StoreDamaged(
                f"{self.path} was written to after it was saved; machines made from it are not clean"
            )

    def expect_unchanged(self) -> None:
        """Raise `StoreDamaged` where size, time or content differ; reads the whole file."""
        self.expect_untouched()
        self.expect_content()

    def renewed(self) -> Fingerprint:
        """The fingerprint with the time that the file has now; reads it whole where that is another.

        Raises `StoreDamaged` where the file is another, or where without a checksum nobody can tell.
        """
        found = self._found()
        if found.st_mtime_ns == self.changed and found.st_size == self.size:
            return self
        if found.st_size != self.size:
            raise StoreDamaged(f"{self.path} has {found.st_size} bytes, and was saved with {self.size}")
        if self.checksum is None:
            raise StoreDamaged(f"{self.path} was written to after it was saved")
        self.expect_content()
        return replace(self, changed=found.st_mtime_ns)

    def _found(self) -> os.stat_result:
        try:
            return self.path.stat()
        except OSError as error:
            raise StoreDamaged(f"{self.path} cannot be read: {error.strerror}") from error

    def expect_content(self) -> None:
        """Raise `StoreDamaged` where size or content differ; reads the whole file, if it has a checksum."""
        if (size := self._found().st_size) != self.size:
            raise StoreDamaged(f"{self.path} has {size} bytes, and was saved with {self.size}")
        if self.checksum is not None and checksum(self.path) != self.checksum:
            raise StoreDamaged(f"the content of {self.path} changed after it was saved")


def fingerprint(path: Path) -> Fingerprint:
    """The fingerprint of `path` as it is now; reads the whole file."""
    return replace(outline(path), checksum=checksum(path))


def outline(path: Path) -> Fingerprint:
    """The fingerprint of `path` as it is now, without a checksum."""
    found = path.stat()
    return Fingerprint(path=path, size=found.st_size, changed=found.st_mtime_ns, checksum=None)


def checksum(path: Path) -> int:
    """A checksum (CRC-32) of the file's data; holes are not read, and are as zeros."""
    value = 0
    with path.open("rb") as file:
        for start, end in extents(file.fileno()):
            file.seek(start)
            while start < end and (data := file.read(min(CHUNK, end - start))):
                value = _added(value, start, data)
                start += len(data)
    return value


PAGE = 4096
ZEROS = bytes(CHUNK)


def _added(value: int, start: int, data: bytes) -> int:
    """`value` with the data at `start`, page by page: in a copy, zeros may be in place of a hole."""
    if data == ZEROS[: len(data)]:
        return value
    for at in range(0, len(data), PAGE):
        page = data[at : at + PAGE]
        if page != ZEROS[: len(page)]:
            value = zlib.crc32(page, zlib.crc32((start + at).to_bytes(8, "little"), value))
    return value


def extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """Where the file has data, lseek(2) SEEK_DATA."""
    end = 0
    while True:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # ENXIO: no data beyond
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end
