"""Find the states in the store."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_vmsnap.cli import state_table
from pytest_vmsnap.errors import SpecError, StoreDamaged, UnknownState
from pytest_vmsnap.host import choose_uri, default_store
from pytest_vmsnap.progress import Progress
from pytest_vmsnap.registry import open_registry, parse_address
from pytest_vmsnap.states import KIND, Origin, expect_own_store, is_full, members_of, origin_of, read_needed
from pytest_vmsnap.store import Store, entry_usages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_vmsnap.model import Settings
    from pytest_vmsnap.registry import Registry
    from pytest_vmsnap.store import EntryUsage

log = logging.getLogger("pytest_vmsnap.cli")

SHOWN = 8  # digits of a key


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredState:
    """A state in the store: its origin, its entry, and its size in bytes, including its memory file.

    `size` is the space used on the disk, `apparent` is the size of the files. `full` says whether the memory is
    a file of its own, not a layer on another. `members` are the keys of a cluster's machines by name, whose
    sizes are in its own.
    """

    origin: Origin
    usage: EntryUsage
    size: int
    apparent: int
    full: bool
    members: dict[str, str]

    @property
    def key(self) -> str:
        return self.usage.name.key

    @property
    def title(self) -> str:
        """Its name on the command line: ``NAME@KEY``."""
        return f"{self.origin.name}@{self.key[:SHOWN]}"


def open_store(settings: Settings, *, own: bool = False) -> Store:
    """Open the store that the settings name; `own` says that it must not be the system store.

    Raises `StoreError`, `HostError` if the libvirt URI is wrong, `SpecError` if it is the system store.
    """
    path = settings.store or default_store(choose_uri(settings))
    if own:
        expect_own_store(path, settings.system_store)
    return Store(path, progress=Progress(print))


def registry(settings: Settings) -> Registry:
    """The registry that the settings name.

    Raises `SpecError` if they name none, `HostError` if its client is not installed.
    """
    if settings.registry is None:
        raise SpecError(
            "there is no registry to push to or pull from",
            hint="set vmsnap_registry (VMSNAP_REGISTRY) to oci://HOST/REPOSITORY",
        )
    return open_registry(parse_address(settings.registry))


def all_states(store: Store) -> list[StoredState]:
    """All states in the store, the oldest first, without those that cannot be read."""
    weighed = {(each.name.kind, each.name.key): each for each in entry_usages(store)}
    found = []
    for (kind, key), usage in weighed.items():
        if kind != KIND:
            continue
        memory = weighed.get(("memory", key))
        try:
            found.append(
                StoredState(
                    origin=origin_of(store.place(usage.name)),
                    usage=usage,
                    size=usage.size + (memory.size if memory else 0),
                    apparent=usage.apparent + (memory.apparent if memory else 0),
                    full=is_full(store.place(usage.name)),
                    members=members_of(store.place(usage.name)),
                )
            )
        except StoreDamaged as error:
            log.warning("%s", error)
    by_key = {each.key: each for each in found}
    whole = [_with_members(each, by_key) for each in found]
    return sorted(whole, key=lambda each: each.origin.created)


def _with_members(state: StoredState, by_key: Mapping[str, StoredState]) -> StoredState:
    """`state` with the sizes of its machines."""
    members = [by_key[key] for key in state.members.values() if key in by_key]
    return replace(
        state,
        size=state.size + sum(member.size for member in members),
        apparent=state.apparent + sum(member.apparent for member in members),
    )


def without_members(states: Sequence[StoredState]) -> list[StoredState]:
    """`states` without the machines of clusters, which the clusters stand for."""
    members = {key for state in states for key in state.members.values()}
    return [state for state in states if state.key not in members]


def find_state(store: Store, settings: Settings, written: str, *, newest: bool = False) -> StoredState:
    """The state that `written` names, as ``NAME`` (preferably of this project) or ``NAME@KEY``.

    Raises `UnknownState` with a list of states if none matches, or if several match; with `newest`, the newest
    of them is returned.
    """
    name, _, key = written.partition("@")
    everything = all_states(store)
    found = [each for each in everything if each.origin.name == name and each.key.startswith(key)]
    if not key:
        found = [each for each in found if each.origin.project == str(settings.root)] or found
    if len(found) == 1 or (found and newest):
        return found[-1]
    listed = (
        "\n".join(f"  {line}" for line in state_table.rows(found or without_members(everything), project=True))
        or "  none"
    )
    if found:
        raise UnknownState(f"{written!r} matches several states", hint=f"choose one as NAME@KEY:\n{listed}")
    raise UnknownState(
        f"there is no state {written!r} in the store {store.path}", hint=f"the store has:\n{listed}"
    )


def find_own_state(store: Store, settings: Settings, written: str) -> StoredState:
    """As `find_state`, with a state of this project unless a key is given.

    That is the one that its last run needed, whichever project built it; else its newest of that name.
    """
    found = find_state(store, settings, written, newest=True)
    if "@" in written:
        return found
    if needed := read_needed(store, settings.root, written):
        for each in all_states(store):
            if (each.origin.name, each.key) == (written, needed.key):
                return each
    if found.origin.project != str(settings.root):
        raise UnknownState(
            f"this project has no state {written!r} in the store {store.path}",
            hint=f"another has: {found.title} (of {found.origin.project})",
        )
    return found


def entry(store: Store, state: StoredState) -> Path:
    """The directory of a state in the store."""
    return store.place(state.usage.name)
