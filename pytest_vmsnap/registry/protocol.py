"""What the plugin asks of a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pytest_vmsnap.registry.address import RegistryAddress


class Registry(Protocol):
    """A repository of a registry; several threads may use it at once. Each method raises `RegistryError`."""

    address: RegistryAddress

    def manifest(self, reference: str) -> bytes | None:
        """The manifest that `reference` names, a tag or a digest; None if there is none."""

    def blob(self, digest: str, size: int) -> bytes:
        """The content of a blob, which has `size` bytes; its digest is checked."""

    def put(self, digest: str, data: bytes) -> bool:
        """Store the blob `data`; returns False if the registry had it already."""

    def put_manifest(self, tag: str, manifest: bytes) -> None:
        """Store a manifest under `tag`; its blobs are there already."""
