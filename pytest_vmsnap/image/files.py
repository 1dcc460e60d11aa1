"""Files that the user names: find, check and identify them without reading them whole."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_vmsnap.errors import ImageError


def find(written: str, root: Path, *, what: str) -> Path:
    """Return the absolute path of the file `written` by the user, which may be relative to `root`.

    Symbolic links stay, because a qcow2's backing file is relative to the path that was used. `what` names the
    file in messages, e.g. ``"image"``.

    Raises `ImageError` if it is missing, empty, neither a file nor a block device, or cannot be read.
    """
    try:
        path = Path(os.path.abspath(root / Path(written).expanduser()))  # noqa: PTH100 - keeps links
        _check(path, written, what)
    except (RuntimeError, ValueError) as error:  # no such user's home, or a NUL in the name
        raise ImageError(f"the {what} {written!r} is not a valid path: {error}") from error
    return path


def _check(path: Path, written: str, what: str) -> None:
    if not path.exists():
        missing = next(parent for parent in reversed([path, *path.parents]) if not parent.exists())
        raise ImageError(
            f"there is no {what} {path}",
            hint=f"{missing} does not exist"
            + (f"; it was written as {written!r}" if written != str(path) else ""),
        )
    if path.is_dir():
        raise ImageError(f"the {what} {path} is a directory", hint="name a file in it")
    if not (path.is_file() or path.is_block_device()):
        raise ImageError(f"the {what} {path} is neither a file nor a block device")
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise ImageError(
            f"the {what} {path} cannot be read: {error.strerror}",
            hint=f"give your user permission to read it (ls -l {path}), or use a copy",
        ) from error
    if not first:
        raise ImageError(f"the {what} {path} is empty")


def identity(path: Path) -> list[object]:
    """What changes if the file at `path` changes: real path, device, inode, size, time."""
    real = path.resolve()
    stat = real.stat()
    return [str(real), stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns]
