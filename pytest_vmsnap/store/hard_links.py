"""Put entries of one store into another one on the same file system, without using space."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from pytest_vmsnap.host import copy_file
from pytest_vmsnap.store import dependencies, manifest

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.store.dependencies import EntryName
    from pytest_vmsnap.store.directory import Store


def link_entries(source: Store, name: EntryName, target: Store) -> None:
    """Put the entry `name` and all that it needs into the store `target` too.

    Uses hard links, because the files of an entry do not change; copies if the file system has none. Raises
    `StoreDamaged` if something is missing.
    """
    for each in dependencies.closure(source.path, name):
        if not target.place(each).exists():  # another entry may need it too
            _link_tree(source.place(each), target.place(each))


def _link_tree(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700, exist_ok=True)
    for path in source.iterdir():
        if path.is_dir():
            _link_tree(path, target / path.name)
        elif path.name in (manifest.NAME, manifest.USED):  # these do change
            shutil.copy2(path, target / path.name)
        else:
            link_or_copy(path, target / path.name)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file that nobody writes to, or copy it if that fails."""
    try:
        os.link(source, target)
    except OSError:
        copy_file(source, target)
