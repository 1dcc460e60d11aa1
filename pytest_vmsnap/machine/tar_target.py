"""Unpack a tar archive from the guest on the host, while it arrives.

The guest made the archive and must not be able to touch the host: whatever the archive says, files are written
only below the given directory, a device node is an error, and set-user-ID bits are dropped.
"""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
import threading
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

from pytest_vmsnap.errors import ChannelError

if TYPE_CHECKING:
    from collections.abc import Callable

PIECE = 1 << 18
ZEROS = bytes(1 << 16)
SPACE_CHECK_BYTES = 8 << 20  # bytes of a file from which on the free space is checked first
OWN_BITS = 0o1777  # the mode bits that are kept: set-user-ID and set-group-ID are meant for the guest


class Unpacking(threading.Thread):
    """A thread that unpacks the tree `name` of an archive into the new directory `staging`.

    Write the archive to `file`, and then call `finish`. `failure` says why the archive could not be unpacked,
    or is None. The thread calls `note` with the number of bytes that it has written to files.
    """

    def __init__(self, name: str, staging: Path, note: Callable[[int], None]) -> None:
        super().__init__(name="vmsnap-unpacking", daemon=True)
        self._name, self._staging, self._note = name, staging, note
        reading, writing = os.pipe()
        self._reading = os.fdopen(reading, "rb")
        self.file: BinaryIO = os.fdopen(writing, "wb", buffering=0)
        self.failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            with self._reading:
                _unpack(self._reading, self._name, self._staging, self._note)
                while self._reading.read(PIECE):
                    pass  # the padding of the last record
        except (OSError, ChannelError, tarfile.TarError, EOFError, ValueError) as error:
            self.failure = error

    def finish(self) -> None:
        """Close `file`, and wait until everything written to it is unpacked."""
        with suppress(OSError):
            self.file.close()
        self.join()


def _unpack(reading: BinaryIO, name: str, staging: Path, note: Callable[[int], None]) -> None:
    directories: list[tuple[Path, tarfile.TarInfo]] = []
    written = 0
    with tarfile.open(fileobj=reading, mode="r|", bufsize=PIECE) as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined] # else it keeps a member for each file of the tree
            path = staging / _below(PurePosixPath(member.name), name)
            _expect_no_links(path.parent, staging)
            if member.isdir():
                if path.is_symlink() or not path.is_dir():
                    _clear(path)
                    path.mkdir(mode=0o700)
                directories.append((path, member))
                continue
            _clear(path)
            if member.isreg():
                written += _write(archive, member, path)
                note(written)
            elif member.issym():
                path.symlink_to(member.linkname)
            elif member.islnk():
                first = staging / _below(PurePosixPath(member.linkname), name)
                _expect_no_links(first.parent, staging)
                os.link(first, path, follow_symlinks=False)
                continue
            elif member.isfifo():
                os.mkfifo(path, 0o600)
            else:
                raise ChannelError(f"{member.name} is a device node, which cannot be downloaded: leave it out")
            _attributes(archive, member, path)
        for path, member in reversed(directories):
            _attributes(archive, member, path)


def _below(path: PurePosixPath, name: str) -> PurePosixPath:
    if ".." in path.parts or path.parts[:1] != (name,):
        raise ChannelError(f"{path} is not copied: the archive should only have files below {name}")
    return path


def _expect_no_links(directory: Path, staging: Path) -> None:
    """Raise `ChannelError` if a directory on the way from `staging` is a symlink: it may lead anywhere."""
    while directory != staging:
        if directory.is_symlink():
            raise ChannelError(
                f"the archive has a file below {directory.name}, which is a symlink: it is not copied"
            )
        directory = directory.parent


def _clear(path: Path) -> None:
    """Remove what an earlier member of the same name left; raise `ChannelError` if it is a directory."""
    if path.is_dir() and not path.is_symlink():
        raise ChannelError(f"{path.name} is not copied: the archive has it as a directory and as a file")
    path.unlink(missing_ok=True)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> int:
    """Write a file, with its holes; return how many bytes of data it has."""
    source = archive.fileobj
    assert source is not None  # noqa: S101 - it is open
    runs = cast("list[tuple[int, int]]", member.sparse) if member.issparse() else [(0, member.size)]
    size = sum(length for _, length in runs)
    _expect_room(path, size)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as target:
        source.seek(member.offset_data)
        for start, length in runs:
            target.seek(start)
            while length:
                piece = source.read(min(PIECE, length))
                if not piece:
                    raise tarfile.ReadError("the archive ends in the middle of a file")
                length -= len(piece)
                _write_with_holes(target, piece)
        target.truncate(member.size)
    return size


def _write_with_holes(target: BinaryIO, piece: bytes) -> None:
    """Write a piece, and leave holes for zeros: some tars in guests do not know sparse files."""
    view = memoryview(piece)
    while view:
        part = view[: len(ZEROS)]
        if len(part) == len(ZEROS) and part == ZEROS:
            target.seek(len(part), os.SEEK_CUR)
        else:
            while part:
                part = part[target.write(part) :]
        view = view[len(ZEROS) :]


def _expect_room(path: Path, size: int) -> None:
    if size < SPACE_CHECK_BYTES:
        return
    free = shutil.disk_usage(path.parent).free
    if free < size:
        words = f"{path.name} needs {size >> 20} MiB, but only {free >> 20} MiB are free"
        raise OSError(errno.ENOSPC, words, str(path.parent.parent))


def _attributes(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if os.geteuid() == 0:
        archive.chown(member, str(path), False)
    if not member.issym():
        path.chmod(member.mode & OWN_BITS)
        os.utime(path, (member.mtime, member.mtime))


def move_into_place(staged: Path, target: Path) -> None:
    """Move the tree `staged` to `target` on the same file system, and merge it as ``cp -a`` does.

    Raises `IsADirectoryError` or `NotADirectoryError` if a file would replace a directory or the reverse.
    """
    both = target.is_dir() and not target.is_symlink(), staged.is_dir() and not staged.is_symlink()
    if all(both):
        for child in list(staged.iterdir()):
            move_into_place(child, target / child.name)
        shutil.copystat(staged, target)
    elif both[0]:
        raise IsADirectoryError(errno.EISDIR, "a file cannot replace a directory", str(target))
    else:
        if both[1] and (target.exists() or target.is_symlink()):
            raise NotADirectoryError(errno.ENOTDIR, "a directory cannot replace a file", str(target))
        staged.replace(target)
