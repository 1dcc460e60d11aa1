"""Python, its libvirt binding, and libvirt itself."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError, NoHypervisor
from pytest_vmsnap.host import embedded_driver, emulator
from pytest_vmsnap.host.doctor.from_errors import asked
from pytest_vmsnap.host.libvirt import BINDING, INSTALL, library
from pytest_vmsnap.model import Finding, ok

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vmsnap.host.libvirt import Connection

PACKAGES = ("pytest", "pytest-vmsnap")
DAEMONS = ("virtqemud", "libvirtd")  # libvirt.org, "Daemons": the modular one, the monolithic one
SYSTEM_PROGRAMS = ("/usr/sbin", "/usr/local/sbin", "/sbin")  # not in an ordinary user's PATH


def python() -> Finding:
    """The versions of Python, pytest and the plugin."""
    return ok("python", ", ".join([platform.python_version(), *map(_version, PACKAGES)]))


def binding() -> Finding:
    """Whether libvirt-python can be imported, and its version."""
    try:
        with embedded_driver.logs_to(Path(os.devnull)):  # the findings show libvirt's errors
            library.modules()
    except NoHypervisor as error:
        return Finding(name="libvirt-python", status="failure", found=error.message, advice=BINDING)
    return ok("libvirt-python", library.binding_version())


def libvirt_of(connection: Connection) -> Finding:
    """The version of the libvirt that answers, and whether it is new enough."""

    def version() -> str:
        emulator.expect_version("libvirt", connection.library_version, emulator.LIBVIRT_FLOOR)
        return connection.library_version

    return asked("libvirt", version)


def installed_libvirt(why: str, directories: Sequence[str] = SYSTEM_PROGRAMS) -> Finding:
    """The installed libvirt, if none could be asked; `why` says what prevented it."""
    programs = [found for name in DAEMONS if (found := _program(name, directories))]
    if not programs:
        return Finding(
            name="libvirt",
            status="failure",
            found=f"neither {' nor '.join(DAEMONS)} is installed",
            advice=INSTALL,
        )
    try:
        version = emulator.version_of(programs[0])
        emulator.expect_version("libvirt", version, emulator.LIBVIRT_FLOOR)
    except HostError as error:
        return Finding(name="libvirt", status="failure", found=error.message, advice=error.hint)
    return ok("libvirt", f"{version} is installed ({programs[0]}); {why}")


def _version(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:  # run from the source tree
        return f"{package} (not installed)"


def _program(name: str, directories: Sequence[str]) -> Path | None:
    found = shutil.which(name) or shutil.which(name, path=":".join(directories))
    return Path(found) if found else None
