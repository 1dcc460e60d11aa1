"""The store's size, and what goes first when it has grown over its limit."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import StoreError
from pytest_vmsnap.store import manifest, needs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pytest_vmsnap.store.directory import Store
    from pytest_vmsnap.store.needs import Kind, Name

log = logging.getLogger("pytest_vmsnap.store")

BLOCK = 512  # stat(2), st_blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """An entry as it weighs: `size` in bytes on the disk, `apparent` as its files say; its last use.

    What several entries have in common (hard links) is counted to each in part.
    """

    name: Name
    size: int
    apparent: int
    used: float


SHARED: tuple[Kind, ...] = ("images", "copies", "states", "memory", "downloads")  # what one limit holds for


def holdings(store: Store, *kinds: Kind) -> list[Holding]:
    """What the store keeps of `kinds`, the longest unused first; without any, of all under the one limit."""
    names = store.entries(*(kinds or SHARED))
    found = [holding for name in names if (holding := _holding(store, name))]
    return sorted(found, key=lambda holding: holding.used)


def trim(store: Store, limit_mib: int, *, dry: bool = False) -> list[Holding]:
    """Remove what was not used for longest until the store is within `limit_mib` MiB; returns what goes.

    What a run uses stays, and what others are made on goes behind these. With `dry` nothing is removed.
    """
    rest = holdings(store)
    excess = sum(holding.size for holding in rest) - (limit_mib << 20)
    gone: list[Holding] = []
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


def discard(store: Store, names: Iterable[Name], *, dry: bool = False) -> list[Holding]:
    """Remove `names` and what is made on them; returns what goes. Raises `StoreError` where a run uses one of
    them.

    With `dry` nothing is removed.
    """
    everything = {holding.name: holding for holding in holdings(store)}
    gone: list[Name] = []
    for name in names:
        gone += [each for each in (*needs.dependents(store.path, everything, name), name) if each not in gone]
    if used := [name for name in gone if store.claims.is_used(name)]:
        raise StoreError(f"a run that goes on uses {', '.join(map(str, used))}", hint="wait for its end")
    for name in gone if not dry else ():
        store.remove(name)
    return [everything[name] for name in gone]


def _next(store: Store, rest: list[Holding]) -> Holding | None:
    needed = {below for holding in rest for below in needs.read(store.place(holding.name))}
    for holding in rest:
        if holding.name not in needed and not store.claims.is_used(holding.name):
            return holding
    return None


def _holding(store: Store, name: Name) -> Holding | None:
    """What an entry weighs, None where another run removes it meanwhile."""
    place = store.place(name)
    mark = place / manifest.USED
    try:
        stats = [path.lstat() for path in _files(place)]
        used = (mark if mark.exists() else place).stat().st_mtime
    except FileNotFoundError:
        return None
    return Holding(
        name=name,
        size=sum(stat.st_blocks * BLOCK // stat.st_nlink for stat in stats),
        apparent=sum(stat.st_size for stat in stats),
        used=used,
    )


def _files(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.is_file()]
