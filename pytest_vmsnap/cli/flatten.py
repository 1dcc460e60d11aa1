"""Write the disk of a state as an image that stands alone."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap import fork, states
from pytest_vmsnap.cli import listing
from pytest_vmsnap.errors import StoreError

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "flatten"


def add(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("state", metavar="STATE", help="NAME of this project, or NAME@KEY")
    parser.add_argument("out", metavar="OUT.qcow2", type=Path, help="the file to write, which is not there yet")
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Write the disk."""
    store = listing.opened(settings)
    state = listing.chosen(store, settings, arguments.state)
    snapshot = states.load(store, listing.entry(store, state))
    if arguments.out.exists():
        raise StoreError(f"{arguments.out} is there already", hint="name another file: nothing is overwritten")
    if not snapshot.disks:
        raise StoreError(f"the state {state.title} has no disk")
    fork.flatten(snapshot.disks[0], arguments.out)
    print(f"{arguments.out}: the disk of {state.title}")
    return 0
