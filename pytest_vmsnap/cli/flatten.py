"""Write the disk of a state to an image without a backing file."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap import fork, states
from pytest_vmsnap.cli import stored_states
from pytest_vmsnap.errors import StoreError

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "flatten"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vmsnap flatten`."""
    parser.add_argument("state", metavar="STATE", help="a state: NAME (of this project) or NAME@KEY")
    parser.add_argument("out", metavar="OUT.qcow2", type=Path, help="the file to write; it must not exist yet")
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Write the disk. Raises `UnknownState`, `StoreError` if the file exists or the state has no disk."""
    store = stored_states.open_store(settings)
    state = stored_states.find_state(store, settings, arguments.state)
    snapshot = states.load(store, stored_states.entry(store, state))
    if arguments.out.exists():
        raise StoreError(
            f"{arguments.out} already exists", hint="name a file that does not exist: vmsnap overwrites nothing"
        )
    if not (disks := fork.drives_of(snapshot.disks, snapshot.image)):
        raise StoreError(f"the state {state.title} has no disk")
    fork.flatten(disks[0], arguments.out)
    print(f"{arguments.out}: the disk of {state.title}")
    return 0
