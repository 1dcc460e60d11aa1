"""The only package that imports libvirt."""

from pytest_vmsnap.host.libvirt.connection import Connection
from pytest_vmsnap.host.libvirt.domain import Domain
from pytest_vmsnap.host.libvirt.library import BINDING, INSTALL, silence_taint_warnings

__all__ = ["Connection", "Domain", "INSTALL", "BINDING", "silence_taint_warnings"]
