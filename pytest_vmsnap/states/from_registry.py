"""States in a registry: what is pushed of them, and where they are pulled from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.errors import RegistryError
from pytest_vmsnap.registry import Description, Puller, digest_in_registry, find, push, tag_of
from pytest_vmsnap.states import entries
from pytest_vmsnap.states.acceptance import acceptance, why_not_for_others
from pytest_vmsnap.states.entries import KIND, title_of
from pytest_vmsnap.states.lock_file import FILE as LOCK_FILE
from pytest_vmsnap.store import closure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.registry import Pushed, Registry
    from pytest_vmsnap.store import EntryName, Store


def registry_source(
    store: Store,
    client: Registry,
    *,
    root: Path,
    progress: Progress,
    pinned: Mapping[str, str] | None,
    build_instead: bool = True,
) -> Puller:
    """The registry of `client` as a source of `store`, for the project at `root`; see `Puller`."""

    return Puller(
        store,
        client,
        progress=progress,
        accept=acceptance(store, project=root),
        pinned=pinned,
        build_instead=build_instead,
    )


def push_state(store: Store, client: Registry, name: EntryName, *, progress: Progress) -> list[Pushed]:
    """Push the state in the entry `name` and everything that it needs; raises as `registry.push`.

    A state that needs a file outside of the store cannot be pushed: another host does not have it.
    """
    for each in closure(store.path, name):
        if reason := why_not_for_others(store, each):
            raise RegistryError(
                f"the {title_of(store, each)} cannot be pushed: {reason}", hint=entries.IMAGE_FOR_OTHERS
            )
    return push(store, client, name, describe=lambda each: _described(store, each), progress=progress)


def pull_state(
    store: Store,
    registry: Registry,
    written: str,
    *,
    root: Path,
    progress: Progress,
    pinned: Mapping[str, str] | None,
) -> tuple[EntryName, int] | None:
    """Pull the state that `written` names (see `registry.find`) into the store, for the project at `root`.

    Returns its entry and the number of bytes that were received; None if the registry does not have it. Raises
    `RegistryError`, `StoreDamaged`.
    """
    if (found := find(registry, written)) is None:
        return None
    source = registry_source(store, registry, root=root, progress=progress, pinned=pinned, build_instead=False)
    store.sources = [source]

    def refuse(draft: Path) -> None:  # noqa: ARG001 - as a store calls it
        if pinned is None:
            raise RegistryError(f"{registry.address} no longer has {written}")
        raise RegistryError(
            f"{LOCK_FILE} in {root} does not list {written} as {registry.address} has it",
            hint="`vmsnap lock` adds the states of this project that are in the store and the registry",
        )

    store.provide(found.name.kind, found.name.key, f"state {written}", refuse)
    return found.name, source.received


def lock(
    store: Store, registry: Registry, names: Iterable[EntryName]
) -> tuple[dict[str, str], list[EntryName]]:
    """The digests by tag of `names` and of what they need, and those of `names` that the registry lacks."""
    pins: dict[str, str] = {}
    missing = []
    for name in names:
        digests = {each: digest_in_registry(store, registry, each) for each in closure(store.path, name)}
        if None in digests.values():
            missing.append(name)
        else:
            pins |= {tag_of(each): digest for each, digest in digests.items() if digest}
    return pins, missing


def _described(store: Store, name: EntryName) -> Description:
    if name.kind != KIND:
        return Description(title=title_of(store, name))
    origin = entries.origin_of(store.place(name))
    return Description(title=title_of(store, name), state=origin.name, made_from=origin.key_parts)
