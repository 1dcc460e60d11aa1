"""The states in the store, as a person names them."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import StoreDamaged, UnknownState
from pytest_vmsnap.host import choose_uri, default_store
from pytest_vmsnap.progress import Progress
from pytest_vmsnap.states import KIND, Origin, is_full, origin_of
from pytest_vmsnap.store import Store, holdings

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.model import Settings
    from pytest_vmsnap.store import Holding

log = logging.getLogger("pytest_vmsnap.cli")

SHOWN = 8  # digits of a key
MINUTE, HOUR, DAY = 60, 3600, 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A state in the store: what it is of, what it weighs, whether its memory needs no other."""

    origin: Origin
    holding: Holding
    size: int
    apparent: int
    full: bool

    @property
    def key(self) -> str:
        return self.holding.name.key

    @property
    def title(self) -> str:
        """What names it on the command line."""
        return f"{self.origin.name}@{self.key[:SHOWN]}"


def opened(settings: Settings) -> Store:
    """The store of these settings."""
    return Store(settings.store or default_store(choose_uri(settings)), progress=Progress(print))


def kept(store: Store) -> list[Kept]:
    """All states in the store, the oldest first; one that cannot be read is left out."""
    weighed = {(each.name.kind, each.name.key): each for each in holdings(store)}
    found = []
    for (kind, key), holding in weighed.items():
        if kind != KIND:
            continue
        memory = weighed.get(("memory", key))
        try:
            found.append(
                Kept(
                    origin=origin_of(store.place(holding.name)),
                    holding=holding,
                    size=holding.size + (memory.size if memory else 0),
                    apparent=holding.apparent + (memory.apparent if memory else 0),
                    full=is_full(store.place(holding.name)),
                )
            )
        except StoreDamaged as error:
            log.warning("%s", error)
    return sorted(found, key=lambda each: each.origin.created)


def chosen(store: Store, settings: Settings, written: str, *, newest: bool = False) -> Kept:
    """The state that a person names as ``NAME`` (of this project) or ``NAME@KEY``; of several, the `newest`.

    Raises `UnknownState` with what there is, or with those that it may be.
    """
    name, _, key = written.partition("@")
    everything = kept(store)
    found = [each for each in everything if each.origin.name == name and each.key.startswith(key)]
    if not key:
        found = [each for each in found if each.origin.project == str(settings.root)] or found
    if len(found) == 1 or (found and newest):
        return found[-1]
    listed = "\n".join(f"  {line}" for line in rows(found or everything, project=True)) or "  none"
    if found:
        raise UnknownState(f"{written!r} may be one of several states", hint=f"say which:\n{listed}")
    raise UnknownState(f"there is no state {written!r} in the store {store.path}", hint=f"there are:\n{listed}")


def entry(store: Store, state: Kept) -> Path:
    """Where its files are."""
    return store.place(state.holding.name)


def rows(states: list[Kept], *, project: bool = False, depth: int = 0) -> list[str]:
    """A line for each state, with columns; with `project` also whose it is."""
    now = time.time()
    lines = []
    for each in states:
        made = each.origin.made_from
        words = [
            f"{'  ' * depth}{each.title}",
            "full" if each.full else "incremental",
            f"{size(each.size)} of {size(each.apparent)}",
            f"made {ago(now - each.origin.created)} ago",
            f"used {ago(now - each.holding.used)} ago",
            f"{made.get('image', '?')}, QEMU {made.get('QEMU', '?')}, {made.get('accelerator', '?')}",
        ]
        lines.append("  ".join([*words, each.origin.project] if project else words))
    return lines


def size(count: int) -> str:
    mib = count / (1 << 20)
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"


def ago(seconds: float) -> str:
    for unit, name in ((DAY, "days"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(0.0, seconds):.0f} s"
