"""Finding an entry in a registry by what a person calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.errors import RegistryError, StoreDamaged
from pytest_vmsnap.registry.artifact import (
    config_digest,
    content_of,
    digest_of,
    name_in,
    parse_config,
    tag_of,
    tag_of_title,
)
from pytest_vmsnap.store import EntryName

if TYPE_CHECKING:
    from pytest_vmsnap.registry.protocol import Registry
    from pytest_vmsnap.store import Store

STATES = "states-"


def find(registry: Registry, written: str) -> EntryName | None:
    """The state that `written` names, NAME as it was pushed last or NAME@KEY; None if there is none.

    Raises `RegistryError`, also if the start of a key fits several states.
    """
    name, _, key = written.partition("@")
    if key:
        found = sorted({tag for tag in registry.tags() if tag.startswith(STATES + key)})
        if len(found) > 1:
            raise RegistryError(f"{written} fits several states in {registry.address}: {', '.join(found)}")
        return EntryName(kind="states", key=found[0].removeprefix(STATES)) if found else None
    tag = tag_of_title(f"state {name}")
    manifest = registry.manifest(tag) if tag else None
    return name_in(registry.blob(*config_digest(manifest))) if manifest else None


def digest_in_registry(store: Store, registry: Registry, name: EntryName) -> str | None:
    """The digest of the entry `name` in the registry, if it has there the content that it has in `store`."""
    manifest = registry.manifest(tag_of(name))
    if manifest is None:
        return None
    try:
        entry = parse_config(registry.blob(*config_digest(manifest)), name)
        is_same = entry.content == content_of(store.place(name), name)
    except StoreDamaged:
        return None
    return digest_of(manifest) if is_same else None
