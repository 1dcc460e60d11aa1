"""Which entries of a store are not what was saved: their files are read, and compared with their checksums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import StoreDamaged
from pytest_vmsnap.store import manifest, needs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pytest_vmsnap.store.directory import Store
    from pytest_vmsnap.store.needs import Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """An entry that is not what was saved: `what` says which file, and what is wrong with it.

    `inode` tells this entry from one that is made anew in its place; None where there is none.
    """

    name: Name
    what: str
    inode: int | None


def damage_of(store: Store, name: Name) -> list[Damage]:
    """What is wrong with the entry `name` and with those that it needs; all of their files are read."""
    try:
        names = needs.closure(store.path, name)
    except StoreDamaged as error:
        return [Damage(name=name, what=error.message, inode=inode_of(store.place(name)))]
    return [damage for each in names if (damage := _damage(store, each))]


def has_checksums(entry: Path) -> bool:
    """Whether checksums of its files were taken when it was made."""
    if not (entry / manifest.NAME).exists():
        return False
    return all(each.checksum is not None for each in manifest.read(entry).values())


def inode_of(entry: Path) -> int | None:
    """What tells a directory from another that takes its place."""
    try:
        return entry.stat().st_ino
    except FileNotFoundError:
        return None


def _damage(store: Store, name: Name) -> Damage | None:
    entry = store.place(name)
    inode = inode_of(entry)
    try:
        manifest.verify(entry)
    except StoreDamaged as error:
        return Damage(name=name, what=error.message, inode=inode)
    return None


def remove_damaged(store: Store, damaged: Iterable[Damage]) -> None:
    """Remove damaged entries, and what was made on them, unless another run has made them anew by now.

    A machine that runs has its files open, and goes on.
    """
    for damage in damaged:
        if damage.inode != inode_of(store.place(damage.name)):
            continue
        above = needs.dependents(store.path, store.entries("states", "memory"), damage.name)
        for each in (*above, damage.name):
            store.remove(each)
