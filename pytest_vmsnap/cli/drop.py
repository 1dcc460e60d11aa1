"""Remove machines that were kept; never what is in use."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap import evidence
from pytest_vmsnap.cli import listing, machines
from pytest_vmsnap.errors import StoreError
from pytest_vmsnap.host import sweep

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "drop"


def add(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("tests", metavar="TEST", nargs="*", help="as `vmsnap kept` lists it, or its key")
    parser.add_argument("--all", action="store_true", help="all of this project")
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Remove, and say what."""
    if bool(arguments.tests) == arguments.all:
        raise StoreError("say which: vmsnap drop TEST, or vmsnap drop --all")
    store = listing.opened(settings)
    sweep(store.runs)
    if arguments.all:
        gone = [each for each in evidence.kept(store) if each.note.project == str(settings.root)]
    else:
        gone = [machines.chosen(store, settings, written) for written in arguments.tests]
    if used := [each.note.title for each in gone if store.claims.is_used(each.holding.name)]:
        raise StoreError(f"somebody has opened {', '.join(used)}", hint="wait for its end")
    for each in gone:
        store.remove(each.holding.name)
        print(f"removed {each.note.title} ({each.note.label}): {listing.size(each.holding.size)}")
    return 0
