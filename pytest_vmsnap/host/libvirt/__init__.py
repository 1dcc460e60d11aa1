"""The one place that imports libvirt."""

from pytest_vmsnap.host.libvirt.connection import Connection
from pytest_vmsnap.host.libvirt.domain import Domain
from pytest_vmsnap.host.libvirt.library import BINDING, INSTALL, keep_taints_quiet

__all__ = ["Connection", "Domain", "INSTALL", "BINDING", "keep_taints_quiet"]
