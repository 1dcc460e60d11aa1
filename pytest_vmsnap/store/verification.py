"""Find entries of a store that are not what was saved: read their files, and compare their checksums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import StoreDamaged
from pytest_vmsnap.store import dependencies, manifest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pytest_vmsnap.store.dependencies import EntryName
    from pytest_vmsnap.store.directory import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """An entry that is not what was saved: `what` says which file, and what is wrong with it.

    `inode` distinguishes this entry from one that is built later in its place; None if there is none.
    """

    name: EntryName
    what: str
    inode: int | None


def damage_of(store: Store, name: EntryName) -> list[Damage]:
    """What is wrong with the entry `name` and with those that it needs; reads all of their files."""
    try:
        names = dependencies.closure(store.path, name)
    except StoreDamaged as error:
        return [Damage(name=name, what=error.message, inode=inode_of(store.place(name)))]
    return [damage for each in names if (damage := _damage(store, each))]


def has_checksums(entry: Path) -> bool:
    """Whether checksums of all its files were taken when it was built."""
    if not (entry / manifest.NAME).exists():
        return False
    return all(each.checksum is not None for each in manifest.read(entry).values())


def inode_of(entry: Path) -> int | None:
    """The inode of a directory, which a later one in its place does not have; None if it is missing."""
    try:
        return entry.stat().st_ino
    except FileNotFoundError:
        return None


def _damage(store: Store, name: EntryName) -> Damage | None:
    entry = store.place(name)
    inode = inode_of(entry)
    try:
        manifest.verify(entry)
    except StoreDamaged as error:
        return Damage(name=name, what=error.message, inode=inode)
    return None


def remove_damaged(store: Store, damaged: Iterable[Damage]) -> None:
    """Remove damaged entries and those built on them, unless another run has rebuilt them by now.

    A running machine has its files open and continues.
    """
    for damage in damaged:
        if damage.inode != inode_of(store.place(damage.name)):
            continue
        above = dependencies.dependents(store.path, store.entries("states", "memory"), damage.name)
        for each in (*above, damage.name):
            store.remove(each)
