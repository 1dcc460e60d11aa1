"""Share states with all users of this host: copy them to the system store (vmsnap_system_store)."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap import states
from pytest_vmsnap.cli import stored_states
from pytest_vmsnap.errors import SpecError
from pytest_vmsnap.progress import Progress

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "share"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vmsnap share`."""
    parser.add_argument(
        "states", metavar="STATE", nargs="+", help="a state: NAME (of this project) or NAME@KEY"
    )
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Share each state. Raises `UnknownState`, `StoreError`, `SpecError` without a system store."""
    if settings.system_store is None:
        raise SpecError("there is no system store: vmsnap_system_store is none", hint="name a directory")
    store = stored_states.open_store(settings, own=True)
    found = [stored_states.find_own_state(store, settings, written) for written in arguments.states]
    for state in found:
        copied = states.share_state(store, state.usage.name, settings.system_store, progress=Progress(print))
        how = "shared" if copied else "it was shared already"
        print(f"{state.title}: {how} in {settings.system_store}")
    return 0
