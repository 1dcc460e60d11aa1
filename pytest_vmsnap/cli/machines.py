"""The kept machines, as a person names them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_vmsnap import evidence
from pytest_vmsnap.cli.listing import SHOWN, ago, size
from pytest_vmsnap.errors import UnknownState

if TYPE_CHECKING:
    from pytest_vmsnap.evidence import Kept
    from pytest_vmsnap.model import Settings
    from pytest_vmsnap.store import Store


def matching(store: Store, settings: Settings, written: str, label: str | None = None) -> list[Kept]:
    """The kept machines that a person names by ``TEST``, a part of it, or a key; those of this project first.

    A whole name comes before a part of one, and of several with one name only the newest is meant.
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


def chosen(store: Store, settings: Settings, written: str, label: str | None = None) -> Kept:
    """The one that is meant; raises `UnknownState` with what there is, or with those that it may be."""
    found = matching(store, settings, written, label)
    if len(found) == 1:
        return found[0]
    listed = "\n".join(f"  {line}" for line in rows(found or evidence.kept(store))) or "  none"
    if found:
        raise UnknownState(
            f"{written!r} may be one of several machines", hint=f"say which, by its key or --machine:\n{listed}"
        )
    raise UnknownState(f"no machine of {written!r} is kept in {store.path}", hint=f"there are:\n{listed}")


def rows(machines: list[Kept]) -> list[str]:
    """A line for each, the oldest first."""
    now = time.time()
    return [
        f"{each.key[:SHOWN]}  {size(each.holding.size):>8}  {ago(now - each.note.when)} ago  "
        f"{each.note.title} ({each.note.label}, from {each.note.state}): {each.note.why}"
        for each in machines
    ]
