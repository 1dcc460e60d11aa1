"""What a vendor publishes under a name at the moment: the address of the image, and its checksum."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

from pytest_vmsnap.errors import ImageError
from pytest_vmsnap.image.checksum import Checksum
from pytest_vmsnap.image.vendors.sums import parse_sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_vmsnap.image.vendors.names import VendorName

    Read = Callable[[str], str]

LINK = re.compile(r"""href\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """An image that a vendor publishes: its `address` and `checksum`, and the address of the `sums`."""

    address: str
    checksum: Checksum
    sums: str


def resolve(name: VendorName, read: Read, *, mirror: str | None = None) -> Published:
    """Ask the vendor of `name`, or its `mirror`, for the newest image.

    `read` returns the text at an address; it raises `ImageError`, and so does this if the answer is not what
    the table of vendors says.
    """
    vendor = name.vendor
    directory = at_mirror(name.filled_in(vendor.directory), mirror)
    pattern, sums = name.filled_in(vendor.file), name.filled_in(vendor.sums)
    beside = "{file}" in sums
    if beside:
        file = pattern if "*" not in pattern else _newest(_listed(directory, read), pattern, directory, name)
        sums = sums.replace("{file}", file)
    elif "*" in sums:
        sums = _newest(_listed(directory, read), sums, directory, name)
    address = urljoin(directory, sums)
    digests = parse_sums(read(address), vendor.algorithm)
    if not beside:
        file = _newest(digests, pattern, address, name)
    elif len(set(digests.values())) == 1:
        return _published(directory, file, next(iter(digests.values())), address, name)
    if file not in digests:
        raise _unexpected(f"{address} has no {vendor.algorithm} checksum of {file}", name)
    return _published(directory, file, digests[file], address, name)


def at_mirror(address: str, mirror: str | None) -> str:
    """The `address` on `mirror`, which has the vendors' servers as directories."""
    if mirror is None:
        return address
    parts = urlsplit(address)
    return f"{mirror.rstrip('/')}/{parts.netloc}{parts.path}"


def _published(directory: str, file: str, digits: str, sums: str, name: VendorName) -> Published:
    checksum = Checksum(name.vendor.algorithm, digits)
    return Published(address=urljoin(directory, file), checksum=checksum, sums=sums)


def _listed(directory: str, read: Read) -> list[str]:
    """The names in the directory: the links on its page."""
    return [unquote(urlsplit(link).path).rpartition("/")[2] for link in LINK.findall(read(directory))]


def _newest(names: Iterable[str], pattern: str, where: str, name: VendorName) -> str:
    """The newest of `names` that fit `pattern`, by the numbers in them."""
    fitting = [one for one in names if fnmatchcase(one, pattern)]
    if not fitting:
        raise _unexpected(f"{where} lists no {pattern}", name)
    return max(fitting, key=_natural)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _unexpected(what: str, name: VendorName) -> ImageError:
    return ImageError(
        f"the image {name} cannot be found: {what}",
        hint="the vendor may have removed it, or moved its files: look at the address in a browser, and set "
        "vmsnap_image to the image's own address, with vmsnap_image_sha256",
    )
