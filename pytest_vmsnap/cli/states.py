"""List the states in the store as a tree, with their sizes, what they were made from, and their last use.

Sizes are the space that is used on the disk, of the apparent size of the files.
"""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.cli import state_table, stored_states

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "states"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vmsnap states`."""
    parser.add_argument("--all", action="store_true", help="also list those of other projects")
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the tree."""
    store = stored_states.open_store(settings)
    everything = stored_states.without_members(stored_states.all_states(store))
    shown = [each for each in everything if arguments.all or each.origin.project == str(settings.root)]
    keys = {each.key for each in shown}
    _print(shown, [each for each in shown if each.origin.parent not in keys], 0, project=arguments.all)
    if not shown:
        others = f"; {len(everything)} of other projects (--all)" if everything else ""
        print(f"no states of this project in {store.path}{others}")
    return 0


def _print(
    shown: list[stored_states.StoredState], level: list[stored_states.StoredState], depth: int, *, project: bool
) -> None:
    for each in level:
        print(*state_table.rows([each], project=project, depth=depth), sep="\n")
        _print(shown, [one for one in shown if one.origin.parent == each.key], depth + 1, project=project)
