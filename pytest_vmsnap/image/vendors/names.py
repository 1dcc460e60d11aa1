"""The names of vendors' images: the table of vendors, and what a name asks for."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ImageError
from pytest_vmsnap.image.checksum import Checksum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_vmsnap.image.checksum import Algorithm

TABLE = "vendors.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """A row of the table (`TABLE`), where its fields are explained."""

    name: str
    title: str
    directory: str
    file: str
    sums: str
    algorithm: Algorithm
    source: str
    version: str | None = None
    examples: tuple[str, ...] = ()
    codenames: Mapping[str, str] | None = None

    @property
    def examples_text(self) -> str:
        """Its names as a user writes them."""
        return ", ".join(f"{self.name}:{version}" for version in self.examples) or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorName:
    """A vendor's image as the user names it: the `vendor`, the `version`, and the checksum to insist on."""

    vendor: Vendor
    version: str = ""
    pin: Checksum | None = None

    def __str__(self) -> str:
        return f"{self.vendor.name}:{self.version}" if self.version else self.vendor.name

    def filled_in(self, template: str) -> str:
        """Return `template`, a field of the vendor, with this version."""
        codename = (self.vendor.codenames or {}).get(self.version, "")
        return template.replace("{version}", self.version).replace("{codename}", codename)


@cache
def vendors() -> Mapping[str, Vendor]:
    """The vendors by name."""
    table = tomllib.loads(files(__package__).joinpath(TABLE).read_text(encoding="utf-8"))
    return {
        name: Vendor(name=name, **row | {"examples": tuple(row["examples"])}) for name, row in table.items()
    }


def is_vendor_name(image: str) -> bool:
    """Whether `image` begins with a vendor's name: then it is no path."""
    return re.split("[:@]", image, maxsplit=1)[0] in vendors()


def parse_name(image: str) -> VendorName:
    """What the name `image` asks for, e.g. ``ubuntu:24.04`` or ``ubuntu:24.04@sha256:...``.

    Raises `ImageError` for a version that the vendor does not have, or an invalid checksum.
    """
    name, _, pinned = image.partition("@")
    vendor_name, _, version = name.partition(":")
    vendor = vendors()[vendor_name]
    if vendor.version is None:
        fits = version == ""
    else:
        fits = bool(re.fullmatch(vendor.version, version))
        fits &= vendor.codenames is None or version in vendor.codenames
    if not fits:
        raise ImageError(f"{name!r} is not an image of {vendor.title}", hint=f"e.g. {vendor.examples_text}")
    return VendorName(vendor=vendor, version=version, pin=_pin(image, pinned, vendor) if pinned else None)


def _pin(image: str, written: str, vendor: Vendor) -> Checksum:
    try:
        found = Checksum.parse(written)
    except ValueError as error:
        raise ImageError(f"the image {image!r} has an invalid checksum: {error}") from error
    if found.algorithm != vendor.algorithm:
        raise ImageError(
            f"the image {image!r} has a checksum of {found.algorithm}, but {vendor.title} publishes "
            f"{vendor.algorithm}",
            hint="vmsnap images shows the checksum of each image in the store",
        )
    return found
