"""Write vmsnap.lock: the digests of the states and images that runs may pull from the registry."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap import states
from pytest_vmsnap.cli import stored_states
from pytest_vmsnap.errors import UnknownState

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "lock"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vmsnap lock`."""
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:  # noqa: ARG001 - as every verb
    """Pin the states of this project that are in the store and the registry; other pins stay.

    Raises `UnknownState` if there is none, `RegistryError`, `StoreError` if the file is not valid.
    """
    registry = stored_states.registry(settings)
    store = stored_states.open_store(settings)
    before = states.read_lock(settings.root) or {}
    mine = [each for each in stored_states.all_states(store) if each.origin.project == str(settings.root)]
    pins, missing = states.lock(store, registry, [each.usage.name for each in mine])
    for each in mine:
        if each.usage.name in missing:
            print(f"{each.title}: the registry does not have it; `vmsnap push {each.title}` pushes it")
    if not pins:
        raise UnknownState(
            f"no state of this project is both in the store {store.path} and in {registry.address}",
            hint="run the tests with --vmsnap-push first",
        )
    path = states.write_lock(settings.root, before | pins)
    new = sum(before.get(tag) != digest for tag, digest in pins.items())
    print(f"{path}: {len(before | pins)} digests, {new} of them new")
    return 0
