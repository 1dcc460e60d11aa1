"""What a file was when it was saved, and the proof that it has not changed."""

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

    The checksum is None if none was taken.
    """

    path: Path
    size: int
    changed: int
    checksum: int | None

    def expect_untouched(self) -> None:
        """Raise `StoreDamaged` if size or time differ or the file is gone; costs one stat(2)."""
        found = self._found()
        if (found.st_size, found.st_mtime_ns) != (self.size, self.changed):
            raise StoreDamaged(
                f"{self.path} was changed after it was saved, so machines made from it would not be clean"
            )

    def expect_unchanged(self) -> None:
        """Raise `StoreDamaged` if size, time or content differ; reads the whole file."""
        self.expect_untouched()
        self.expect_content()

    def renewed(self) -> Fingerprint:
        """The fingerprint with the file's current time; reads the whole file if the time differs.

        Raises `StoreDamaged` if size or content differ, or if the time differs and there is no checksum.
        """
        found = self._found()
        if found.st_mtime_ns == self.changed and found.st_size == self.size:
            return self
        if found.st_size != self.size:
            raise StoreDamaged(
                f"{self.path} has {found.st_size} bytes instead of the {self.size} that were saved"
            )
        if self.checksum is None:
            raise StoreDamaged(f"{self.path} was changed after it was saved")
        self.expect_content()
        return replace(self, changed=found.st_mtime_ns)

    def _found(self) -> os.stat_result:
        try:
            return self.path.stat()
        except OSError as error:
            raise StoreDamaged(f"{self.path} cannot be read: {error.strerror}") from error

    def expect_content(self) -> None:
        """Raise `StoreDamaged` if size or content differ; reads the whole file if there is a checksum."""
        if (size := self._found().st_size) != self.size:
            raise StoreDamaged(f"{self.path} has {size} bytes instead of the {self.size} that were saved")
        if self.checksum is not None and checksum(self.path) != self.checksum:
            raise StoreDamaged(f"the content of {self.path} changed after it was saved")


def fingerprint(path: Path) -> Fingerprint:
    """The fingerprint of `path` as it is now; reads the whole file."""
    return replace(stat_fingerprint(path), checksum=checksum(path))


def stat_fingerprint(path: Path) -> Fingerprint:
    """The fingerprint of `path` as it is now, without a checksum."""
    found = path.stat()
    return Fingerprint(path=path, size=found.st_size, changed=found.st_mtime_ns, checksum=None)


def checksum(path: Path) -> int:
    """A checksum (CRC-32) of the file's data; holes are not read and count as zeros."""
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
    """`value` with the data at `start` added, without pages of zeros: a copy may have them for a hole."""
    if data == ZEROS[: len(data)]:
        return value
    for at in range(0, len(data), PAGE):
        page = data[at : at + PAGE]
        if page != ZEROS[: len(page)]:
            value = zlib.crc32(page, zlib.crc32((start + at).to_bytes(8, "little"), value))
    return value


def extents(descriptor: int, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
    """Start and end of each part of the file that has data (lseek(2), SEEK_DATA), from `start` to `stop`."""
    end = start
    while stop is None or end < stop:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # ENXIO: no data beyond
            return
        if stop is not None and start >= stop:
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end if stop is None else min(end, stop)
