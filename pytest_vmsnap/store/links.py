"""Entries of one store in another on the same file system, without their space."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from pytest_vmsnap.store import manifest, needs

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.store.directory import Store
    from pytest_vmsnap.store.needs import Name


def link_entries(source: Store, name: Name, target: Store) -> None:
    """Have the entry `name`, and all that it needs, in the store `target` too: by hard links, for no file of an
    entry changes.

    Where the file system has none, they are copied. Raises `StoreDamaged` where something is not there.
    """
    for each in needs.closure(source.path, name):
        _link_tree(source.place(each), target.place(each))


def _link_tree(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700, exist_ok=True)
    for path in source.iterdir():
        if path.is_dir():
            _link_tree(path, target / path.name)
        elif path.name in (manifest.NAME, manifest.USED):  # what is written to
            shutil.copy2(path, target / path.name)
        else:
            link_or_copy(path, target / path.name)


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for a file that nobody writes to; a copy where that cannot be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
