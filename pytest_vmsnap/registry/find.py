"""Finding entries in a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.errors import RegistryError, StoreDamaged
from pytest_vmsnap.registry.artifact import (
    SHOWN_DIGITS,
    content_of,
    digest_of,
    parse_config,
    parse_manifest,
    tag_of,
    tag_of_state,
)

if TYPE_CHECKING:
    from pytest_vmsnap.registry.artifact import EntryInRegistry
    from pytest_vmsnap.registry.protocol import Registry
    from pytest_vmsnap.store import EntryName, Store


def entry_at(registry: Registry, reference: str) -> tuple[str, EntryInRegistry] | None:
    """The digest of the manifest that `reference` names, a tag or a digest, and its entry; None without one.

    Raises `RegistryError` if it is not an entry of pytest-vmsnap.
    """
    manifest = registry.manifest(reference)
    if manifest is None:
        return None
    try:
        return digest_of(manifest), parse_config(registry.blob(*parse_manifest(manifest)))
    except RegistryError as error:
        raise RegistryError(
            f"{reference} of {registry.address}: {error.message}", hint=error.hint, is_lost=error.is_lost
        ) from error


def find(registry: Registry, written: str) -> EntryInRegistry | None:
    """The state that `written` names: NAME as it was pushed last, or NAME@KEY; None if there is none.

    A key has at least 8 digits. Raises `RegistryError`, also for a shorter one.
    """
    state, _, key = written.partition("@")
    if key and len(key) < SHOWN_DIGITS:
        raise RegistryError(
            f"{written}: a key has at least {SHOWN_DIGITS} digits here, as `vmsnap states` shows"
        )
    found = entry_at(registry, tag_of_state(state, key))
    if found is None:
        return None
    entry = found[1]
    return entry if entry.description.state == state and entry.name.key.startswith(key) else None


def digest_in_registry(store: Store, registry: Registry, name: EntryName) -> str | None:
    """The digest of the entry `name` in the registry, if it has there the content that it has in `store`."""
    try:
        found = entry_at(registry, tag_of(name))
        if found is None or found[1].name != name or found[1].content != content_of(store.place(name)):
            return None
    except RegistryError as error:
        if error.is_lost:
            raise
        return None  # what is there cannot be used, and is replaced
    except StoreDamaged:
        return None
    return found[0]
