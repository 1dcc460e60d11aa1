"""What an entry depends on: the entries that it was built on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from pytest_vmsnap.errors import StoreDamaged

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Kind = Literal["images", "downloads", "copies", "states", "memory", "kept"]
FILE = "needs"  # one line for each entry


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class EntryName:
    """The name of an entry of the store: its kind and its key."""

    kind: Kind
    key: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.key}"


def write(entry: Path, names: Iterable[EntryName]) -> None:
    """Record in `entry` the entries that it needs."""
    if lines := [f"{name}\n" for name in names]:
        (entry / FILE).write_text("".join(lines))


def read(entry: Path) -> list[EntryName]:
    """The entries that `entry` needs."""
    try:
        lines = (entry / FILE).read_text().split()
    except FileNotFoundError:
        return []
    return [
        EntryName(kind=cast("Kind", kind), key=key) for kind, _, key in (line.partition("/") for line in lines)
    ]


def needs_of(store: Path, name: EntryName) -> list[EntryName]:
    """The entries that the entry `name` of the store needs."""
    return read(store / name.kind / name.key)


def closure(store: Path, name: EntryName) -> list[EntryName]:
    """`name` and all entries that it needs, directly or not. Raises `StoreDamaged` if one is missing."""
    found: list[EntryName] = []
    rest = [name]
    while rest:
        each = rest.pop()
        if each in found:
            continue
        entry = store / each.kind / each.key
        if not entry.is_dir():
            raise StoreDamaged(f"{each}, which it was built on, is missing")
        found.append(each)
        rest += read(entry)
    return found


def dependents(store: Path, entries: Iterable[EntryName], name: EntryName) -> list[EntryName]:
    """Those of `entries` that need `name`, directly or not; each comes after those that are built on it."""
    below = {each: read(store / each.kind / each.key) for each in entries}
    found: list[EntryName] = []

    def visit(one: EntryName) -> None:
        for each, needed in below.items():
            if one in needed and each not in found:
                visit(each)
                found.append(each)

    visit(name)
    return found
