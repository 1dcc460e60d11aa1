"""List the states in the store as a tree: what they weigh, what they were made from, when they were used.

The sizes are what is taken on the disk, of what the files say.
"""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.cli import listing

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "states"


def add(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--all", action="store_true", help="those of other projects too")
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the tree."""
    store = listing.opened(settings)
    everything = listing.kept(store)
    shown = [each for each in everything if arguments.all or each.origin.project == str(settings.root)]
    keys = {each.key for each in shown}
    _print(shown, [each for each in shown if each.origin.parent not in keys], 0, project=arguments.all)
    if not shown:
        others = f"; {len(everything)} of other projects (--all)" if everything else ""
        print(f"no states of this project in {store.path}{others}")
    return 0


def _print(shown: list[listing.Kept], level: list[listing.Kept], depth: int, *, project: bool) -> None:
    for each in level:
        print(*listing.rows([each], project=project, depth=depth), sep="\n")
        _print(shown, [one for one in shown if one.origin.parent == each.key], depth + 1, project=project)
