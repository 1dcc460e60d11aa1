"""The files of machines: overlays, memory, and proof that they are unchanged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError, SpecError, StoreDamaged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK = 1 << 20


def overlay(path: Path, *, backing: Path, backing_format: str) -> Path:
    """A new qcow2 at `path` that keeps what differs from `backing`."""
    return _create(path, ["-b", str(backing), "-F", backing_format])


def empty_disk(path: Path, *, size_mib: int) -> Path:
    """A new, empty qcow2 at `path`."""
    return _create(path, [], f"{size_mib}M")


def format_of(path: Path) -> str:
    """The format of an image, as qemu-img finds it; raises `SpecError` where it is none."""
    command = ["qemu-img", "info", "-U", "--output=json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SpecError(f"the disk {path} cannot be used: {done.stderr.strip()}")
    return str(json.loads(done.stdout)["format"])


def _create(path: Path, options: list[str], *size: str) -> Path:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), *size]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(f"qemu-img could not make {path}: {done.stderr.strip()}")
    path.chmod(0o600)
    return path


def memory_file(path: Path, *, size_mib: int) -> Path:
    """A new, sparse file of `size_mib` MiB."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(descriptor, size_mib << 20)
    finally:
        os.close(descriptor)
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What a file was when it was saved: size in bytes, time of its last change (ns), checksum of its data."""

    path: Path
    size: int
    changed: int
    checksum: int

    def expect_untouched(self) -> None:
        """Raise `StoreDamaged` where size or time differ; costs one stat(2)."""
        found = self.path.stat()
        if (found.st_size, found.st_mtime_ns) != (self.size, self.changed):
            raise StoreDamaged(
                f"{self.path} was written to after it was saved; machines made from it are not clean"
            )

    def expect_unchanged(self) -> None:
        """Raise `StoreDamaged` where size, time or content differ; reads the whole file."""
        self.expect_untouched()
        if _checksum(self.path) != self.checksum:
            raise StoreDamaged(f"the content of {self.path} changed after it was saved")


def fingerprint(path: Path) -> Fingerprint:
    """The fingerprint of `path` as it is now."""
    found = path.stat()
    return Fingerprint(path=path, size=found.st_size, changed=found.st_mtime_ns, checksum=_checksum(path))


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        for start, end in _extents(file.fileno()):
            file.seek(start)
            checksum = zlib.crc32(start.to_bytes(8, "little"), checksum)
            while start < end and (data := file.read(min(CHUNK, end - start))):
                checksum = zlib.crc32(data, checksum)
                start += len(data)
    return checksum


def _extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """Where the file has data, lseek(2) SEEK_DATA; holes are not read."""
    end = 0
    while True:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # ENXIO: no data beyond
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def remove(directory: Path) -> None:
    """Remove the directory of a machine that has ended."""
    shutil.rmtree(directory, ignore_errors=True)
