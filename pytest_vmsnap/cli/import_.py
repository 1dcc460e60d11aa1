"""Take a state from a file that `vmsnap export` wrote; such a file is to be trusted like a program."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap import states
from pytest_vmsnap.cli import listing
from pytest_vmsnap.host import choose_uri, open_host
from pytest_vmsnap.progress import Progress

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "import"


def add(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("file", metavar="FILE", type=Path, help="what `vmsnap export` wrote")
    parser.add_argument(
        "--disk-only",
        metavar="OUT.qcow2",
        type=Path,
        help="write its disk there, and leave its memory, which another host may have no use for",
    )
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Take the state, or its disk."""
    progress = Progress(print)
    if arguments.disk_only:
        with progress.step(f"reading {arguments.file}"):
            states.extract_disk(arguments.file, arguments.disk_only)
        print(f"{arguments.disk_only}: the disk of the state in {arguments.file}")
        return 0
    store = listing.opened(settings)
    with open_host(settings, choose_uri(settings), store=store.path) as host, progress.step("importing"):
        entry = states.import_(store, arguments.file, here=states.made_from(host.facts, ""))
    origin = states.origin_of(entry)
    print(f"{origin.name}@{entry.name[: listing.SHOWN]}: imported")
    return 0
