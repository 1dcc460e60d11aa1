"""Write vmsnap.lock: the digests of what runs may pull from the registry, and of vendors' images."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap import states
from pytest_vmsnap.cli import stored_states

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "lock"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vmsnap lock`."""
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:  # noqa: ARG001 - as every verb
    """Write the file for the states of this project in the store. Raises `RegistryError`, `SpecError`."""
    registry = stored_states.registry(settings)
    store = stored_states.open_store(settings)
    mine = [each for each in stored_states.all_states(store) if each.origin.project == str(settings.root)]
    pins, missing = states.lock(store, registry, [each.usage.name for each in mine])
    path = states.write_lock(settings.root, pins)
    for each in mine:
        if each.usage.name in missing:
            print(f"{each.title}: the registry does not have it; `vmsnap push {each.title}` pushes it")
    print(f"{path}: {len(pins)} digests")
    return 0
