"""Remove states from the store: what is over its limit, or those that are named; never what is in use."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap import store as stores
from pytest_vmsnap.cli import listing
from pytest_vmsnap.host import sweep

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "prune"


def add(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("states", metavar="STATE", nargs="*", help="NAME of this project, or NAME@KEY")
    parser.add_argument("--all", action="store_true", help="all that no run uses, images too")
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Remove, and say what."""
    store = listing.opened(settings)
    if not arguments.dry_run:
        sweep(store.runs)
    titles = {each.key: each.title for each in listing.kept(store)}
    if arguments.states:
        names = [listing.chosen(store, settings, written).holding.name for written in arguments.states]
        gone = stores.discard(store, names, dry=arguments.dry_run)
    else:
        limit = 0 if arguments.all else settings.store_limit
        gone = stores.trim(store, limit, dry=arguments.dry_run)
    for each in gone:
        what = f"{titles[each.name.key]} ({each.name.kind})" if each.name.key in titles else str(each.name)
        print(f"{'would remove' if arguments.dry_run else 'removed'} {what}: {each.size >> 20} MiB")
    left = sum(each.size for each in stores.holdings(store)) >> 20
    print(f"{store.path}: {left} MiB of {settings.store_limit} MiB" + (", now" if arguments.dry_run else ""))
    return 0
