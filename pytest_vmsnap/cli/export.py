"""Export a state to one self-contained file: a tar archive, compressed with zstd, with checksums."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap import states
from pytest_vmsnap.cli import stored_states
from pytest_vmsnap.progress import Progress

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "export"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vmsnap export`."""
    parser.add_argument("state", metavar="STATE", help="a state: NAME (of this project) or NAME@KEY")
    parser.add_argument("file", metavar="FILE", type=Path, help="the file to write; it must not exist yet")
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Write the file. Raises `UnknownState`, `StoreError` if the file exists, `StoreDamaged`."""
    store = stored_states.open_store(settings)
    state = stored_states.find_state(store, settings, arguments.state)
    with Progress(print).step(f"writing {arguments.file}"):
        states.export(store, stored_states.entry(store, state), arguments.file)
    print(f"{arguments.file}: {state.title}, {arguments.file.stat().st_size >> 20} MiB")
    return 0
