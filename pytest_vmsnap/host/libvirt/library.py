"""libvirt's Python binding, imported on first use.

It has no wheels and needs libvirt's own library. A host without it must still be able to collect tests.
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
install what machines need:
  Debian, Ubuntu:  sudo apt install libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils
  Fedora:          sudo dnf install libvirt-daemon-driver-qemu libvirt-client qemu-kvm qemu-img
  Arch:            sudo pacman -S libvirt qemu-base"""

BINDING = """\
pip builds libvirt-python on this host, which needs libvirt's headers and a compiler:
  Debian, Ubuntu:  sudo apt install libvirt-dev pkg-config gcc python3-dev
  Fedora:          sudo dnf install libvirt-devel pkgconf gcc python3-devel
  Arch:            sudo pacman -S libvirt pkgconf gcc
then: pip install libvirt-python"""


def silence_taint_warnings() -> None:
    """Silence libvirt's warning about a "tainted" domain, which every domain with QEMU arguments is.

    In embed mode libvirt prints it to our stderr. libvirt reads its environment once, when it is initialised
    (libvirt.org, "Logging in the library"), and a conftest may import it before the plugin does.
    """
    os.environ.setdefault("LIBVIRT_LOG_FILTERS", "4:qemu.qemu_domain")


@cache
def modules() -> tuple[ModuleType, ModuleType]:
    """The modules ``libvirt`` and ``libvirt_qemu``; raises `NoHypervisor` if they cannot be imported."""
    try:
        import libvirt
        import libvirt_qemu
    except ImportError as error:
        raise NoHypervisor(
            f"libvirt's Python binding cannot be imported: {error}", hint=f"{BINDING}\n{INSTALL}"
        ) from error
    libvirt.registerErrorHandler(_log_error, None)
    libvirt.virEventRegisterDefaultImpl()  # before the first connection, else it gets no events
    return libvirt, libvirt_qemu


def binding_version() -> str:
    """The versions of the binding and of the libvirt that it calls; raises `NoHypervisor` as `modules` does."""
    libvirt, _ = modules()
    try:
        own = metadata.version("libvirt-python")
    except metadata.PackageNotFoundError:  # a distribution may omit it
        own = "of unknown version"
    return f"{own}, on libvirt {version_text(libvirt.getVersion())}"


def version_text(number: int) -> str:
    """Return the text of a version `number` (libvirt.org, virConnectGetVersion).

    `number` is major * 1,000,000 + minor * 1,000 + release.
    """
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


def _log_error(_context: object, error: tuple[object, ...]) -> None:
    # libvirt's default handler prints every error to stderr, even expected ones
    log.debug("%s", error[2])
