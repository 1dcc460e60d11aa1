"""List the machines that were kept of failed tests, and those that were saved by hand."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap import evidence
from pytest_vmsnap.cli import listing, machines

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "kept"


def add(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--all", action="store_true", help="those of other projects too")
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print a line for each."""
    store = listing.opened(settings)
    everything = evidence.kept(store)
    shown = [each for each in everything if arguments.all or each.note.project == str(settings.root)]
    print(*machines.rows(shown), sep="\n", end="\n" if shown else "")
    if not shown:
        others = f"; {len(everything)} of other projects (--all)" if everything else ""
        print(f"no machine of this project is kept in {store.path}{others}; pytest --vmsnap-keep=failed does")
    return 0
