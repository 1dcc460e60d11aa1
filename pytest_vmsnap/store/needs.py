"""What an entry cannot be without: the entries that it was made on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from pytest_vmsnap.errors import StoreDamaged

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Kind = Literal["images", "downloads", "copies", "states", "memory", "kept"]
FILE = "needs"  # a line for each


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Name:
    """An entry of the store: its kind and its key."""

    kind: Kind
    key: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.key}"


def write(entry: Path, names: Iterable[Name]) -> None:
    """Note in `entry` what it needs."""
    if lines := [f"{name}\n" for name in names]:
        (entry / FILE).write_text("".join(lines))


def read(entry: Path) -> list[Name]:
    """What the entry needs."""
    try:
        lines = (entry / FILE).read_text().split()
    except FileNotFoundError:
        return []
    return [Name(kind=cast("Kind", kind), key=key) for kind, _, key in (line.partition("/") for line in lines)]


def closure(store: Path, name: Name) -> list[Name]:
    """`name` and all that it needs, and so on. Raises `StoreDamaged` where one is not there."""
    found: list[Name] = []
    rest = [name]
    while rest:
        each = rest.pop()
        if each in found:
            continue
        entry = store / each.kind / each.key
        if not entry.is_dir():
            raise StoreDamaged(f"{each}, which it was made on, is not there")
        found.append(each)
        rest += read(entry)
    return found


def dependents(store: Path, entries: Iterable[Name], name: Name) -> list[Name]:
    """Those of `entries` that need `name`, directly or not: what is made on one comes before it."""
    below = {each: read(store / each.kind / each.key) for each in entries}
    found: list[Name] = []

    def visit(one: Name) -> None:
        for each, needed in below.items():
            if one in needed and each not in found:
                visit(each)
                found.append(each)

    visit(name)
    return found
