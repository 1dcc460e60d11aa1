"""The size of the store, and what is removed first when it exceeds its limit."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import StoreError
from pytest_vmsnap.store import dependencies, manifest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pytest_vmsnap.store.dependencies import EntryName, Kind
    from pytest_vmsnap.store.directory import Store

log = logging.getLogger("pytest_vmsnap.store")

BLOCK = 512  # stat(2), st_blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryUsage:
    """The `size` of an entry in bytes on disk, the `apparent` size of its files, and when it was last `used`.

    What several entries share (hard links) counts in part for each. `used` is in seconds since the epoch.
    """

    name: EntryName
    size: int
    apparent: int
    used: float


SHARED: tuple[Kind, ...] = ("images", "copies", "states", "memory", "downloads")  # the limit is for their sum


def entry_usages(store: Store, *kinds: Kind) -> list[EntryUsage]:
    """The entries of `kinds` with their sizes, longest unused first; without `kinds`, all under the limit."""
    names = store.entries(*(kinds or SHARED))
    found = [holding for name in names if (holding := _holding(store, name))]
    return sorted(found, key=lambda holding: holding.used)


def trim(store: Store, limit_mib: int, *, dry: bool = False) -> list[EntryUsage]:
    """Remove the longest unused entries until the store is within `limit_mib` MiB; returns those that go.

    Entries that a run uses stay; one that others are built on goes after them. With `dry`, nothing is removed.
    """
    if not dry:
        store.remove_old_partial()
    rest = entry_usages(store)
    excess = sum(holding.size for holding in rest) - (limit_mib << 20)
    gone: list[EntryUsage] = []
    while excess > 0 and (victim := _next(store, rest)):
        rest.remove(victim)
        if not dry and not store.remove(victim.name, unless_used=True):
            if store.place(victim.name).exists():
                continue  # a run has begun to use it
        else:
            log.info("removed from the store: %s (%d MiB)", victim.name, victim.size >> 20)
            gone.append(victim)
        excess -= victim.size  # or another run has removed it
    return gone


def discard(store: Store, names: Iterable[EntryName], *, dry: bool = False) -> list[EntryUsage]:
    """Remove `names` and the entries built on them; returns those that go.

    With `dry`, nothing is removed. Raises `StoreError` if a run uses one of them.
    """
    everything = {holding.name: holding for holding in entry_usages(store)}
    gone: list[EntryName] = []
    for name in names:
        gone += [
            each for each in (*dependencies.dependents(store.path, everything, name), name) if each not in gone
        ]
    if used := [name for name in gone if store.pins.is_used(name)]:
        raise StoreError(
            f"cannot remove {', '.join(map(str, used))}: a run still uses it",
            hint="wait until that run has ended",
        )
    for name in gone if not dry else ():
        store.remove(name)
    return [everything[name] for name in gone]


def _next(store: Store, rest: list[EntryUsage]) -> EntryUsage | None:
    needed = {below for holding in rest for below in dependencies.read(store.place(holding.name))}
    for holding in rest:
        if holding.name not in needed and not store.pins.is_used(holding.name):
            return holding
    return None


def _holding(store: Store, name: EntryName) -> EntryUsage | None:
    """The sizes of an entry; None if another run removes it meanwhile."""
    place = store.place(name)
    mark = place / manifest.USED
    try:
        stats = [path.lstat() for path in _files(place)]
        used = (mark if mark.exists() else place).stat().st_mtime
    except FileNotFoundError:
        return None
    return EntryUsage(
        name=name,
        size=sum(stat.st_blocks * BLOCK // stat.st_nlink for stat in stats),
        apparent=sum(stat.st_size for stat in stats),
        used=used,
    )


def _files(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.is_file()]
