"""Digests of the files that a preparation reads."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.states.declarations import Declaration

SKIPPED = "__pycache__"  # changes when Python imports a module
CHUNK = 1 << 20


def inputs_digest(declaration: Declaration) -> dict[str, str]:
    """The inputs of a state: SHA-256 by path, relative to the directory of the file that defines the state.

    The digest covers the type of the file, its permissions and its content; of a symbolic link, the path of its
    target. A directory includes everything in it, and its path ends in a slash. ``__pycache__`` is skipped.

    Raises `StateError` if a glob matches nothing.
    """
    base = declaration.file.parent
    found: dict[str, str] = {}
    for glob in declaration.inputs:
        matches = [path for path in base.glob(glob) if SKIPPED not in path.parts[len(base.parts) :]]
        if not matches:
            raise StateError(
                f"the state {declaration.name}: the input {glob!r} matches no file in {base}",
                hint="globs are relative to the directory of the file that defines the state",
            )
        for match in matches:
            found |= {_name(path, base): _digest(path) for path in _with_all_within(match)}
    return dict(sorted(found.items()))


def _with_all_within(path: Path) -> Iterator[Path]:
    yield path
    if _is_directory(path):
        for inner in path.iterdir():
            if inner.name != SKIPPED:
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
    if stat.S_ISREG(found.st_mode):  # reading a pipe or a device may never end
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
