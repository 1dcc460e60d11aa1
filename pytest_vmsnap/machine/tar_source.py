"""Pack a file or a tree of the host into a tar archive, piece by piece while it is sent.

The format is POSIX.1-2001 ("pax"), with GNU tar's format 1.0 for sparse files (GNU tar manual, "Storing Sparse
Files"): holes are not sent.
"""

from __future__ import annotations

import os
import stat
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ChannelError
from pytest_vmsnap.guest import Source
from pytest_vmsnap.store import extents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PIECE = 1 << 18
BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
DISK_BLOCK = 512  # stat(2), st_blocks
KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparse:
    """A sparse file: its `path` on the host, its `name` in the archive, and its size in bytes."""

    path: Path
    name: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A packed tree: the `archive`, and in bytes how much disk space its files take at the target.

    `sparse` are the files with holes.
    """

    archive: Source
    disk_size: int
    sparse: tuple[Sparse, ...]


def packed(source: Path, name: str, *, with_holes: bool) -> Packed:
    """Pack the tree at `source` into an archive in which its name is `name` and its owner is root.

    With `with_holes`, the archive has only the data of a sparse file; without, the file is empty in the
    archive. The tree is read twice: now for the size, and when the archive is sent. Both raise `OSError` if it
    cannot be read; sending raises `ChannelError` if it has changed in between.
    """
    size = disk_size = 0
    sparse = []
    for path, found, member in _members(source, name):
        data = 0
        if member.isreg() and _is_sparse(found):
            data = sum(end - start for start, end in data_of(path, found.st_size))
            sparse.append(Sparse(path=path, name=member.name, size=found.st_size))
        elif member.isreg():
            data = found.st_size
        header, content = _sized(path, found, member, with_holes=with_holes)
        size += len(header) + _padded(content)
        disk_size += data
    size += len(END)
    return Packed(
        archive=Source(size=size, open=lambda: _exact(source, name, size, with_holes=with_holes)),
        disk_size=disk_size,
        sparse=tuple(sparse),
    )


def file_pieces(path: Path, start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes of a file from `start` to `end`; raise `ChannelError` if the file ends before that."""
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while start < end:
            if not (piece := file.read(min(PIECE, end - start))):
                raise _changed(path)
            start += len(piece)
            yield piece


def _exact(source: Path, name: str, size: int, *, with_holes: bool) -> Iterator[bytes]:
    """Yield the archive in large pieces; raise `ChannelError` if it does not have `size` bytes."""
    sent = 0
    piece = bytearray()
    for part in _archive(source, name, with_holes=with_holes):
        sent += len(part)
        if sent > size:
            raise _changed(source)
        piece += part
        if len(piece) >= PIECE:
            yield bytes(piece)
            piece.clear()
    if sent != size:
        raise _changed(source)
    yield bytes(piece)


def _archive(source: Path, name: str, *, with_holes: bool) -> Iterator[bytes]:
    for path, found, member in _members(source, name):
        header, content = _sized(path, found, member, with_holes=with_holes)
        yield header
        if not content:
            continue
        if _is_sparse(found):
            runs = data_of(path, found.st_size)
            yield _map(runs, found.st_size)
        else:
            runs = [(0, found.st_size)]
        for start, end in runs:
            yield from file_pieces(path, start, end)
        yield bytes(_padded(content) - content)
    yield END


def _members(
    source: Path, name: str, links: dict[tuple[int, int], str] | None = None
) -> Iterator[tuple[Path, os.stat_result, tarfile.TarInfo]]:
    """Yield what is in the tree, sorted by name, each directory before its content."""
    links = {} if links is None else links
    found = source.lstat()
    if (kind := KINDS.get(stat.S_IFMT(found.st_mode))) is None:
        return  # a socket: it has no content to copy
    member = tarfile.TarInfo(name)
    member.mode = stat.S_IMODE(found.st_mode)
    member.mtime = found.st_mtime if found.st_mtime_ns % 1_000_000_000 else int(found.st_mtime)
    member.uname = member.gname = "root"
    member.type = kind
    if kind == tarfile.SYMTYPE:
        member.linkname = str(source.readlink())
    elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        member.devmajor, member.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
    elif kind == tarfile.REGTYPE and found.st_nlink > 1:
        first = links.setdefault((found.st_dev, found.st_ino), name)
        if first != name:
            member.type, member.linkname = tarfile.LNKTYPE, first
    yield source, found, member
    if kind == tarfile.DIRTYPE:
        for child in sorted(source.iterdir()):
            yield from _members(child, f"{name}/{child.name}", links)


def _sized(
    path: Path, found: os.stat_result, member: tarfile.TarInfo, *, with_holes: bool
) -> tuple[bytes, int]:
    """Return the header of a member, and how many bytes of content follow it."""
    if member.isreg() and _is_sparse(found):
        if with_holes:
            runs = data_of(path, found.st_size)
            member.size = len(_map(runs, found.st_size)) + sum(end - start for start, end in runs)
            member.pax_headers = {
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": member.name,
                "GNU.sparse.realsize": str(found.st_size),
            }
            parent, _, last = member.name.rpartition("/")
            member.name = f"{parent or '.'}/GNUSparseFile.0/{last}"
    elif member.isreg():
        member.size = found.st_size
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"), member.size


def _is_sparse(found: os.stat_result) -> bool:
    return found.st_blocks * DISK_BLOCK < found.st_size


def data_of(path: Path, size: int) -> list[tuple[int, int]]:
    """Return where a sparse file of `size` bytes has data: the start and the end of each run, in bytes."""
    with path.open("rb") as file:
        return [(start, min(end, size)) for start, end in extents(file.fileno()) if start < size]


def _map(runs: list[tuple[int, int]], size: int) -> bytes:
    """Return the map that precedes the data of a sparse file; its last entry says where the file ends."""
    entries = [(start, end - start) for start, end in runs]
    if not runs or runs[-1][1] < size:
        entries.append((size, 0))
    text = f"{len(entries)}\n" + "".join(f"{start}\n{length}\n" for start, length in entries)
    return text.encode().ljust(_padded(len(text)), b"\0")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _changed(path: Path) -> ChannelError:
    return ChannelError(f"{path} changed while it was copied", hint="copy it while nothing writes to it")
