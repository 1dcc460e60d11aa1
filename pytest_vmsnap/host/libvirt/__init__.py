"""The one place that imports libvirt."""

from pytest_vmsnap.host.libvirt.connection import Connection
from pytest_vmsnap.host.libvirt.domain import Domain
from pytest_vmsnap.host.libvirt.library import BINDING, INSTALL

__all__ = ["Connection", "Domain", "INSTALL", "BINDING"]
