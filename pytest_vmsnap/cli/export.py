"""Write a state to one file that needs nothing else: a tar archive, compressed by zstd, with checksums."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap import states
from pytest_vmsnap.cli import listing
from pytest_vmsnap.progress import Progress

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "export"


def add(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("state", metavar="STATE", help="NAME of this project, or NAME@KEY")
    parser.add_argument("file", metavar="FILE", type=Path, help="the file to write, which is not there yet")
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Write the file."""
    store = listing.opened(settings)
    state = listing.chosen(store, settings, arguments.state)
    with Progress(print).step(f"writing {arguments.file}"):
        states.export(store, listing.entry(store, state), arguments.file)
    print(f"{arguments.file}: {state.title}, {arguments.file.stat().st_size >> 20} MiB")
    return 0
