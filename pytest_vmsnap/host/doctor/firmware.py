"""The finding about UEFI firmware."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError
from pytest_vmsnap.host.firmware import uefi_firmware
from pytest_vmsnap.model import Finding, ok

if TYPE_CHECKING:
    from pytest_vmsnap.model import Firmware

NAME = "firmware"
MACHINES: dict[Firmware, str] = {"uefi": "pc-i440fx-0", "uefi-secure": "pc-q35-0"}  # of any version


def firmware(wanted: Firmware | None) -> Finding:
    """Whether the host has UEFI firmware; this is needed only if `wanted` is, or for an image that needs it."""
    builds = {}
    for each, machine in MACHINES.items():
        try:
            builds[each] = uefi_firmware(each, machine)
        except HostError as error:
            if each == wanted:
                return Finding(name=NAME, status="failure", found=error.message, advice=error.hint)
    if not builds:
        return ok(NAME, "BIOS; for images that boot only with UEFI, install the package ovmf or edk2-ovmf")
    return ok(
        NAME, f"BIOS, {', '.join(builds)}: {', '.join(str(build.code.path) for build in builds.values())}"
    )
