"""The UEFI firmware that this host has (QEMU, docs/interop/firmware.json, "firmware metadata").

A package with firmware for QEMU describes each build in a file. A file in a directory with a higher priority
replaces a file of the same name; an empty one hides it. Of the builds that fit, the first by file name is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pytest_vmsnap.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_vmsnap.model import Firmware

log = logging.getLogger("pytest_vmsnap.host")

FORMATS = ("raw", "qcow2")
INSTALL_UEFI = """\
install it:
Debian, Ubuntu: sudo apt install ovmf
Fedora: sudo dnf install edk2-ovmf
Arch: sudo pacman -S edk2-ovmf"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashImage:
    """A file with the content of a flash chip, and its format."""

    path: Path
    format: Literal["raw", "qcow2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UefiFirmware:
    """A build of UEFI firmware: its `code`, and what a new machine's `variables` contain."""

    description: str
    code: FlashImage
    variables: FlashImage

    def digest(self) -> str:
        """The SHA-256 of both files: part of a state's key."""
        found = hashlib.sha256()
        for image in (self.code, self.variables):
            found.update(image.path.read_bytes())
        return found.hexdigest()


def directories() -> tuple[Path, ...]:
    """Where descriptors are, the highest priority first."""
    own = Path(os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser())
    return own / "qemu/firmware", Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware")


@cache
def uefi_firmware(firmware: Firmware, machine: str, places: tuple[Path, ...] | None = None) -> UefiFirmware:
    """The build for `firmware` (``uefi`` or ``uefi-secure``) on the machine type `machine`.

    `places` are directories of descriptors, None for this host's. Raises `HostError` if there is none.
    """
    places = directories() if places is None else places
    found = next((one for one in _descriptors(places) if _fits(one, firmware, machine)), None)
    if found is None:
        kind = "UEFI firmware with Secure Boot" if firmware == "uefi-secure" else "UEFI firmware"
        raise HostError(
            f"firmware={firmware!r}: this host has no {kind} for QEMU's {machine} (looked for descriptors in "
            f"{', '.join(map(str, places))})",
            hint=INSTALL_UEFI,
        )
    mapping = found["mapping"]
    return UefiFirmware(
        description=str(found.get("description", "")),
        code=_flash_image(mapping["executable"]),
        variables=_flash_image(mapping["nvram-template"]),
    )


def _flash_image(written: dict[str, str]) -> FlashImage:
    kind: Literal["raw", "qcow2"] = "qcow2" if written["format"] == "qcow2" else "raw"
    return FlashImage(path=Path(written["filename"]), format=kind)


def _descriptors(places: Iterable[Path]) -> list[dict[str, Any]]:
    """The content of the descriptors in `places`, by file name; leaves out those that cannot be read."""
    paths: dict[str, Path] = {}
    for place in places:
        for path in place.glob("*.json"):
            paths.setdefault(path.name, path)
    found = []
    for _, path in sorted(paths.items()):
        try:
            if text := path.read_text():
                found.append(json.loads(text))
        except (OSError, ValueError) as error:
            log.warning("the firmware descriptor %s cannot be read: %s", path, error)
    return found


def _fits(descriptor: dict[str, Any], firmware: Firmware, machine: str) -> bool:
    """Whether `descriptor` is a build that has what `firmware` needs, on the machine type `machine`."""
    try:
        mapping, features = descriptor["mapping"], set(descriptor["features"])
        if "uefi" not in descriptor["interface-types"] or mapping["device"] != "flash":
            return False
        if mapping.get("mode", "split") != "split":
            return False
        flash = [mapping["executable"], mapping["nvram-template"]]
        if not all(image["format"] in FORMATS and Path(image["filename"]).is_file() for image in flash):
            return False
        machines = [
            pattern
            for target in descriptor["targets"]
            if target["architecture"] == "x86_64"
            for pattern in target["machines"]
        ]
    except (KeyError, TypeError) as error:
        log.warning("a firmware descriptor is not valid: %r", error)
        return False
    if not any(fnmatch(machine, pattern) for pattern in machines):
        return False
    if firmware == "uefi-secure":
        return {"secure-boot", "enrolled-keys"} <= features
    return not {"secure-boot", "requires-smm", "enrolled-keys"} & features
