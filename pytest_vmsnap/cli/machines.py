"""Find and list the kept machines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_vmsnap import evidence
from pytest_vmsnap.cli.state_table import ago, size
from pytest_vmsnap.cli.stored_states import SHOWN
from pytest_vmsnap.errors import UnknownState

if TYPE_CHECKING:
    from pytest_vmsnap.evidence import Kept
    from pytest_vmsnap.model import Settings
    from pytest_vmsnap.store import Store


def matching(store: Store, settings: Settings, written: str, label: str | None = None) -> list[Kept]:
    """The kept machines that `written` names: a test, a key, or a part of a test; with `label`, only those.

    Machines of this project win over others, and a test or a key over a part of a test. Of several machines of
    a test with the same label, only the newest is returned.
    """
    everything = [each for each in evidence.kept(store) if label in (None, each.note.label)]
    ours = [each for each in everything if each.note.project == str(settings.root)]
    for among in (ours, everything):
        for fits in (
            lambda each: written == each.note.title,
            lambda each: len(written) >= 4 and each.key.startswith(written),
            lambda each: written in each.note.title,
        ):
            if found := {(each.note.title, each.note.label): each for each in among if fits(each)}:
                return list(found.values())
    return []


def find_machine(store: Store, settings: Settings, written: str, label: str | None = None) -> Kept:
    """The kept machine that `written` names; raises `UnknownState` with a list if none or several match."""
    found = matching(store, settings, written, label)
    if len(found) == 1:
        return found[0]
    listed = "\n".join(f"  {line}" for line in rows(found or evidence.kept(store))) or "  none"
    if found:
        raise UnknownState(
            f"{written!r} matches several kept machines",
            hint=f"choose one by its key or with --machine:\n{listed}",
        )
    raise UnknownState(
        f"no kept machine in {store.path} matches {written!r}", hint=f"the kept machines are:\n{listed}"
    )


def rows(machines: list[Kept]) -> list[str]:
    """One line for each of `machines`."""
    now = time.time()
    return [
        f"{each.key[:SHOWN]}  {size(each.usage.size):>8}  {ago(now - each.note.when)} ago  "
        f"{each.note.title} ({each.note.label}, from {each.note.state}): {each.note.why}"
        for each in machines
    ]
