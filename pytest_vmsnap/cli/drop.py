"""Remove kept machines, unless they are in use."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap import evidence
from pytest_vmsnap.cli import machines, state_table, stored_states
from pytest_vmsnap.errors import StoreError
from pytest_vmsnap.host import sweep

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "drop"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vmsnap drop`."""
    parser.add_argument(
        "tests", metavar="TEST", nargs="*", help="a test as `vmsnap kept` lists it, a part of it, or a key"
    )
    parser.add_argument("--all", action="store_true", help="remove all kept machines of this project")
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Remove the machines, and print each one. Raises `StoreError` if one is in use, `UnknownState`."""
    if bool(arguments.tests) == arguments.all:
        raise StoreError("give either tests or --all: vmsnap drop TEST, or vmsnap drop --all")
    store = stored_states.open_store(settings)
    sweep(store.runs)
    if arguments.all:
        gone = [each for each in evidence.kept(store) if each.note.project == str(settings.root)]
    else:
        gone = [machines.find_machine(store, settings, written) for written in arguments.tests]
    if used := [each.note.title for each in gone if store.pins.is_used(each.usage.name)]:
        raise StoreError(f"another process uses {', '.join(used)}", hint="wait until that process ends")
    for each in gone:
        store.remove(each.usage.name)
        print(f"removed {each.note.title} ({each.note.label}): {state_table.size(each.usage.size)}")
    return 0
