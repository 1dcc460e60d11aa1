"""Read the whole store, and show which entries are damaged."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap import evidence, states
from pytest_vmsnap import store as stores
from pytest_vmsnap.cli import stored_states

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pytest_vmsnap.model import Settings
    from pytest_vmsnap.store import Damage, Store

NAME = "verify"
DAMAGED = 1


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vmsnap verify`."""
    parser.add_argument(
        "--remove",
        action="store_true",
        help="remove damaged entries that a run can rebuild (states, memory, images; never a kept machine)",
    )
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Check the store and print what is damaged; returns 1 if anything is."""
    store = stored_states.open_store(settings)
    titles = {each.key: f"state {each.title}" for each in stored_states.all_states(store)}
    titles |= {each.key: f"kept machine of {each.note.title}" for each in evidence.kept(store)}
    damaged = list(_damaged(store))
    for each in damaged:
        print(f"damaged: {titles.get(each.name.key, each.name)}: {each.what}")
        if each.name.kind == "kept":
            print("    it cannot be rebuilt; `vmsnap drop` removes it")
    again = [each for each in damaged if each.name.kind != "kept"]
    if arguments.remove:
        stores.remove_damaged(store, again)
        print(f"removed: {len(again)}; the next run rebuilds what it needs")
    elif again:
        print("`vmsnap verify --remove` removes what can be rebuilt; a run that cannot load it rebuilds it too")
    count = len(store.entries("images", "states", "memory", "kept"))
    print(
        f"{store.path}: {count} entries, {len(damaged)} damaged"
        if damaged
        else f"{store.path}: no damage found"
    )
    return DAMAGED if damaged else 0


def _damaged(store: Store) -> Iterator[Damage]:
    """Each damaged entry of the store, once; shows progress."""
    progress = store.progress
    for name in store.entries("images", "states"):
        with progress.step(f"reading {name}"):
            if not stores.has_checksums(store.place(name)):
                print(f"{name}: has no checksums, so its content cannot be checked")
            yield from (each for each in stores.damage_of(store, name) if each.name == name)
    for name in store.entries("memory"):
        with progress.step(f"reading {name}"):
            if found := states.damaged_memory(store, name):
                yield found
    for kept in evidence.kept(store):
        with progress.step(f"reading the kept machine of {kept.note.title}"):
            if found := evidence.damage_of_kept(store, kept):
                yield found
