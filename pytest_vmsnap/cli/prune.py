"""Remove what exceeds the store's limit, or the states that you name; never what is in use."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap import store as stores
from pytest_vmsnap.cli import stored_states
from pytest_vmsnap.host import sweep
from pytest_vmsnap.states import KIND

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "prune"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vmsnap prune`."""
    parser.add_argument(
        "states", metavar="STATE", nargs="*", help="a state to remove: NAME (of this project) or NAME@KEY"
    )
    parser.add_argument(
        "--all", action="store_true", help="remove everything that no run uses, including images"
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be removed, and remove nothing")
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Remove the entries, and print each one. Raises `UnknownState`, `StoreError` if a state is in use."""
    store = stored_states.open_store(settings)
    if not arguments.dry_run:
        sweep(store.runs)
    titles = {each.key: each.title for each in stored_states.all_states(store)}
    if arguments.states:
        found = [stored_states.find_state(store, settings, written) for written in arguments.states]
        machines = [stores.EntryName(kind=KIND, key=key) for each in found for key in each.members.values()]
        names = [*(each.usage.name for each in found), *machines]
        gone = stores.discard(store, names, dry=arguments.dry_run)
    else:
        limit = 0 if arguments.all else settings.store_limit
        gone = stores.trim(store, limit, dry=arguments.dry_run)
    for each in gone:
        what = f"{titles[each.name.key]} ({each.name.kind})" if each.name.key in titles else str(each.name)
        print(f"{'would remove' if arguments.dry_run else 'removed'} {what}: {each.size >> 20} MiB")
    left = sum(each.size for each in stores.entry_usages(store)) >> 20
    print(f"{store.path}: {left} MiB of {settings.store_limit} MiB" + (", now" if arguments.dry_run else ""))
    return 0
