"""Connecting to a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError

if TYPE_CHECKING:
    from pytest_vmsnap.registry.address import RegistryAddress
    from pytest_vmsnap.registry.protocol import Registry


def open_registry(address: RegistryAddress) -> Registry:
    """The registry at `address`; nothing is sent yet. Raises `HostError` if its client is not installed."""
    try:
        from pytest_vmsnap.registry.client import Client  # late: it takes 0.1 s, and is an extra
    except ModuleNotFoundError as error:
        raise HostError(
            f"a registry of states needs the package {error.name}",
            hint="install it: pip install 'pytest-vmsnap[registry]'",
        ) from error
    return Client(address)
