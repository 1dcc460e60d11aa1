"""Import a state from a file that `vmsnap export` wrote; trust such a file like a program."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap import states
from pytest_vmsnap.cli import stored_states
from pytest_vmsnap.host import choose_uri, open_host
from pytest_vmsnap.progress import Progress

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "import"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vmsnap import`."""
    parser.add_argument("file", metavar="FILE", type=Path, help="a file that `vmsnap export` wrote")
    parser.add_argument(
        "--disk-only",
        metavar="OUT.qcow2",
        type=Path,
        help="only write its disk to this file, without its memory, which another host may not be able to load",
    )
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Import the state, or write its disk. Raises as `states.import_` and `states.extract_disk` do."""
    progress = Progress(print)
    if arguments.disk_only:
        with progress.step(f"reading {arguments.file}"):
            states.extract_disk(arguments.file, arguments.disk_only)
        print(f"{arguments.disk_only}: the disk of the state in {arguments.file}")
        return 0
    store = stored_states.open_store(settings, own=True)
    with open_host(settings, choose_uri(settings), store=store.path) as host, progress.step("importing"):
        entry = states.import_(store, arguments.file, here=states.made_from(host.facts, ""))
    origin = states.origin_of(entry)
    print(f"{origin.name}@{entry.name[: stored_states.SHOWN]}: imported")
    return 0
