"""List the states in the store as a tree, with their sizes, what they were made from, and their last use.

Sizes are the space that is used on the disk, of the apparent size of the files.
"""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap import states
from pytest_vmsnap.cli import state_table, stored_states
from pytest_vmsnap.errors import UnknownState

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from pytest_vmsnap.model import Settings
    from pytest_vmsnap.states import NeededState
    from pytest_vmsnap.store import Store

NAME = "states"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vmsnap states`."""
    parser.add_argument(
        "--why",
        metavar="NAME",
        help="say what differs between the states NAME in the store and in the registry, and what the last "
        "run of this project needed",
    )
    parser.add_argument("--all", action="store_true", help="also list those of other projects")
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the tree."""
    store = stored_states.open_store(settings)
    if arguments.why:
        return _explain(settings, store, arguments.why)
    everything = stored_states.without_members(stored_states.all_states(store))
    shown = [each for each in everything if arguments.all or each.origin.project == str(settings.root)]
    keys = {each.key for each in shown}
    _print(shown, [each for each in shown if each.origin.parent not in keys], 0, project=arguments.all)
    if not shown:
        others = f"; {len(everything)} of other projects (--all)" if everything else ""
        print(f"no states of this project in {store.path}{others}")
    return 0


def _explain(settings: Settings, store: Store, name: str) -> int:
    """Print what differs for the states `name`. Raises `UnknownState` if no run of this project needed it."""
    needed = states.read_needed(store, settings.root, name)
    if needed is None:
        raise UnknownState(
            f"no run of this project with the store {store.path} needed a state {name!r}",
            hint="run a test of that state first, or see `vmsnap states`",
        )
    print(f"the last run of this project needed {name}@{needed.key[: stored_states.SHOWN]}")
    found = [each for each in stored_states.all_states(store) if each.origin.name == name]
    for each in found:
        _compare(f"in the store, {each.title}", each.key, each.origin.key_parts, needed)
    if settings.registry:
        source = states.registry_source(
            store, stored_states.registry(settings), root=settings.root, progress=store.progress, pinned=None
        )
        if there := source.made_from(name):
            key = there[0].key
            _compare(f"in the registry, {name}@{key[: stored_states.SHOWN]}", key, there[1], needed)
        else:
            print(f"in the registry, there is no state {name}")
    return 0


def _compare(what: str, key: str, key_parts: Mapping[str, str], needed: NeededState) -> None:
    if key == needed.key:
        print(f"{what}: fits")
        return
    print(f"{what}: does not fit")
    for line in (
        states.differences(key_parts, needed.key_parts) if key_parts else ["it was saved without a record"]
    ):
        print(f"  {line}")


def _print(
    shown: list[stored_states.StoredState], level: list[stored_states.StoredState], depth: int, *, project: bool
) -> None:
    for each in level:
        print(*state_table.rows([each], project=project, depth=depth), sep="\n")
        _print(shown, [one for one in shown if one.origin.parent == each.key], depth + 1, project=project)
