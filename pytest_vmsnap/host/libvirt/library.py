"""libvirt's Python binding, imported when it is first needed.

It has no wheels and needs libvirt's own library, so a machine without it must still be able to collect.
"""

from __future__ import annotations

import logging
import os
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import NoHypervisor

if TYPE_CHECKING:
    from types import ModuleType

log = logging.getLogger("pytest_vmsnap.libvirt")

INSTALL = """\
what a machine needs:
  Debian, Ubuntu:  sudo apt install libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils
  Fedora:          sudo dnf install libvirt-daemon-driver-qemu libvirt-client qemu-kvm qemu-img
  Arch:            sudo pacman -S libvirt qemu-base"""

BINDING = """\
libvirt-python is built where it is installed, which needs libvirt's headers and a compiler:
  Debian, Ubuntu:  sudo apt install libvirt-dev pkg-config gcc python3-dev
  Fedora:          sudo dnf install libvirt-devel pkgconf gcc python3-devel
  Arch:            sudo pacman -S libvirt pkgconf gcc
then: pip install libvirt-python"""


def keep_taints_quiet() -> None:
    """Have libvirt say nothing of a domain that is "tainted", as every domain with arguments for QEMU is.

    In embed mode it would print that to our stderr. It reads its environment once, when it is initialised
    (libvirt.org, "Logging in the library"): a conftest may import it before we do.
    """
    os.environ.setdefault("LIBVIRT_LOG_FILTERS", "4:qemu.qemu_domain")


@cache
def modules() -> tuple[ModuleType, ModuleType]:
    """The modules ``libvirt`` and ``libvirt_qemu``; raises `NoHypervisor` where they are not installed."""
    try:
        import libvirt
        import libvirt_qemu
    except ImportError as error:
        raise NoHypervisor(
            f"libvirt's Python binding cannot be imported: {error}", hint=f"{BINDING}\n{INSTALL}"
        ) from error
    libvirt.registerErrorHandler(_log_error, None)
    libvirt.virEventRegisterDefaultImpl()  # before the first connection, or it has no events
    return libvirt, libvirt_qemu


def binding_version() -> str:
    """The versions of the binding and of the libvirt that it calls; raises `NoHypervisor` without one."""
    libvirt, _ = modules()
    try:
        own = metadata.version("libvirt-python")
    except metadata.PackageNotFoundError:  # a distribution may leave it out
        own = "of unknown version"
    return f"{own}, on libvirt {version_text(libvirt.getVersion())}"


def version_text(number: int) -> str:
    """As it is written (libvirt.org, virConnectGetVersion): major * 1,000,000 + minor * 1,000 + release."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


def _log_error(_context: object, error: tuple[object, ...]) -> None:
    # libvirt's default handler prints every error to stderr, those that are expected too
    log.debug("%s", error[2])
