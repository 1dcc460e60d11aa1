"""Push states to the registry (vmsnap_registry), with what they were built on."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap import states
from pytest_vmsnap.cli import stored_states
from pytest_vmsnap.progress import Progress

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "push"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vmsnap push`."""
    parser.add_argument(
        "states", metavar="STATE", nargs="+", help="a state: NAME (of this project) or NAME@KEY"
    )
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Push each state. Raises `UnknownState`, `RegistryError`, `SpecError` without a registry."""
    registry = stored_states.registry(settings)
    store = stored_states.open_store(settings, own=True)
    found = [stored_states.find_own_state(store, settings, written) for written in arguments.states]
    for state in found:
        pushed = states.push_state(store, registry, state.usage.name, progress=Progress(print))
        sent = sum(each.sent for each in pushed)
        how = f"{sent / 1e6:.0f} MB sent" if sent else "it was there already"
        print(f"{state.title}: {pushed[0].digest}, {how}")
    return 0
