"""List the kept machines: those of failed tests, and those that you saved in `vmsnap open`."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap import evidence
from pytest_vmsnap.cli import machines, stored_states

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "kept"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vmsnap kept`."""
    parser.add_argument("--all", action="store_true", help="also list those of other projects")
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print one line for each kept machine."""
    store = stored_states.open_store(settings)
    everything = evidence.kept(store)
    shown = [each for each in everything if arguments.all or each.note.project == str(settings.root)]
    print(*machines.rows(shown), sep="\n", end="\n" if shown else "")
    if not shown:
        others = f"; {len(everything)} of other projects (--all)" if everything else ""
        print(
            f"no kept machines of this project in {store.path}{others}; pytest --vmsnap-keep=failed keeps "
            "those of failed tests"
        )
    return 0
