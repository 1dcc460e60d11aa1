"""What a run does with a registry, besides pulling: it pushes, says what does not fit, and distrusts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import RegistryError, StoreDamaged
from pytest_vmsnap.registry import Puller
from pytest_vmsnap.states import cache_key
from pytest_vmsnap.states.entries import KIND, title_of
from pytest_vmsnap.states.from_registry import push_state
from pytest_vmsnap.store import PULLED, Damage, closure, inode_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.registry import Registry
    from pytest_vmsnap.store import EntryName, Store

log = logging.getLogger("pytest_vmsnap.states")

MOST_DIFFERENCES = 3  # that are said of a state


class RunRegistry:
    """The states of a run and a registry: that of the store's source, and `target`, which gets what is used.

    Without a registry, nothing is done. A registry that fails is only reported.
    """

    def __init__(self, store: Store, *, target: Registry | None, progress: Progress) -> None:
        self._store = store
        self._target = target
        self._progress = progress

    def push(self, name: EntryName) -> None:
        """Push the state unless it came from another store."""
        if self._target is None or (self._store.place(name) / PULLED).exists():
            return
        try:
            push_state(self._store, self._target, name, progress=self._progress)
        except (RegistryError, StoreDamaged, OSError) as error:
            self._progress.say(f"the {title_of(self._store, name)} was not pushed: {error}")
            if isinstance(error, RegistryError) and error.is_lost:
                self._target = None

    def say_what_differs(self, state: str, key_parts: Mapping[str, str]) -> None:
        """Say why the registry's state of this name is not used, if it has one and this run builds it.

        `key_parts` are those of the state that is needed (see `cache_key.key_parts`).
        """
        puller = next((each for each in self._store.sources if isinstance(each, Puller)), None)
        if puller is None:
            return
        try:
            there = puller.made_from(state)
        except RegistryError as error:
            log.info("what the registry's state %s was made from is not known: %s", state, error)
            return
        if there is None or not there[1]:
            return
        if found := cache_key.differences(there[1], key_parts):
            shown = "; ".join(found[:MOST_DIFFERENCES])
            rest = f"; {len(found) - MOST_DIFFERENCES} more" if len(found) > MOST_DIFFERENCES else ""
            self._progress.say(f"the registry's state {state} does not fit: {shown}{rest}")

    def distrust(self, name: EntryName) -> list[Damage]:
        """The states from other stores that `name` is, or was made from, as damage.

        They are whole, but do not load. They will be built on this host.
        """
        found = [each for each in closure(self._store.path, name) if each.kind == KIND]
        pulled = [each for each in found if (self._store.place(each) / PULLED).exists()]
        self._store.distrusted.update(pulled)
        what = "it came from another store, and cannot be used on this host"
        return [Damage(name=each, what=what, inode=inode_of(self._store.place(each))) for each in pulled]
