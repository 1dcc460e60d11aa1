"""The files that a preparation reads, by content."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.states.declared import Declaration

PASSED_OVER = "__pycache__"  # changes by being looked at
CHUNK = 1 << 20


def inputs_digest(declaration: Declaration) -> dict[str, str]:
    """What the inputs of a state are: SHA-256 by path, relative to the directory of the file that defines it.

    The digest is over permissions and content; a symbolic link is taken by its target's name. A directory is
    taken with all within, its name ending in a slash. ``__pycache__`` is passed over.

    Raises `StateError` for a glob that matches nothing.
    """
    base = declaration.file.parent
    found: dict[str, str] = {}
    for glob in declaration.inputs:
        matches = [path for path in base.glob(glob) if PASSED_OVER not in path.parts[len(base.parts) :]]
        if not matches:
            raise StateError(
                f"the state {declaration.name}: its input {glob!r} matches nothing in {base}",
                hint="globs are relative to the file that defines the state",
            )
        for match in matches:
            found |= {_name(path, base): _digest(path) for path in _with_all_within(match)}
    return dict(sorted(found.items()))


def _with_all_within(path: Path) -> Iterator[Path]:
    yield path
    if _is_directory(path):
        for inner in path.iterdir():
            if inner.name != PASSED_OVER:
                yield from _with_all_within(inner)


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _name(path: Path, base: Path) -> str:
    return Path(os.path.relpath(path, base)).as_posix() + ("/" if _is_directory(path) else "")


def _digest(path: Path) -> str:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return hashlib.sha256(b"link " + os.fsencode(path.readlink())).hexdigest()
    digest = hashlib.sha256(f"{stat.filemode(found.st_mode)[0]}{found.st_mode & 0o777:03o} ".encode())
    if stat.S_ISREG(found.st_mode):  # to read a pipe or a device would not end
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
