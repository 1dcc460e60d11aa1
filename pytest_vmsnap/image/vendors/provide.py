"""Get a vendor's image from the store, or resolve its name and fetch it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ImageError
from pytest_vmsnap.host import write_whole
from pytest_vmsnap.image.checksum import DISK, META, Checksum
from pytest_vmsnap.image.download import fetch_into_store, read_text, without_secrets
from pytest_vmsnap.image.local_image import describe
from pytest_vmsnap.image.vendors.names import parse_name
from pytest_vmsnap.image.vendors.resolve import Published, resolve

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.image.vendors.names import VendorName
    from pytest_vmsnap.model import Image, ImageRequest
    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.store import Store

RESOLUTIONS = "image-names"  # a directory in the store with a file for each name


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What a name stands for in this store, and when (seconds since the epoch) the vendor said so."""

    published: Published
    when: float


def provide_vendor(request: ImageRequest, written: str, *, store: Store, progress: Progress) -> Image:
    """Return the vendor's image that the name `written` stands for.

    A name is resolved once: later runs use the same image, until `fetch` or a refresh of the store resolves it
    again. Raises `ImageError` if the vendor does not have the image, or it has another checksum than the name
    insists on.
    """
    name = parse_name(written)
    resolution = None if store.refresh else resolution_of(store, name)
    published = resolution.published if resolution else None
    if name.pin and (published is None or published.checksum != name.pin):
        published = _pinned(name, name.pin, request.mirror, store)
    elif published is None:
        published = _resolved(name, request.mirror, store, progress)
    entry = _entry(name, published, store, progress)
    return describe(request, entry / DISK, origin=str(name), content=published.checksum.digest)


def fetch(name: VendorName, *, mirror: str | None, store: Store, progress: Progress) -> Published:
    """Resolve `name` again, and fetch the image if it is not in the store. Raises `ImageError`."""
    published = _pinned(name, name.pin, mirror, store) if name.pin else _resolved(name, mirror, store, progress)
    _entry(name, published, store, progress)
    return published


def resolution_of(store: Store, name: VendorName) -> Resolution | None:
    """What `name` stands for in this store; None if it has not been resolved."""
    try:
        found = json.loads(_record(store, name).read_text())
        checksum = Checksum.parse(found["checksum"])
        published = Published(address=str(found["address"]), checksum=checksum, sums=str(found["sums"]))
        return Resolution(published=published, when=float(found["when"]))
    except (OSError, ValueError, TypeError, KeyError):  # resolved again
        return None


def is_in_store(store: Store, checksum: Checksum) -> bool:
    """Whether the image with this checksum is in the store."""
    return store.entry("images", checksum.key) is not None


def _record(store: Store, name: VendorName) -> Path:
    return store.path / RESOLUTIONS / f"{name}.json"


def _resolved(name: VendorName, mirror: str | None, store: Store, progress: Progress) -> Published:
    with progress.step(f"asking {name.vendor.title} for {name}"):
        published = resolve(name, read_text, mirror=mirror)
    record = _record(store, name)
    record.parent.mkdir(mode=0o700, exist_ok=True)
    found = {
        "address": published.address,
        "checksum": str(published.checksum),
        "sums": published.sums,
        "when": time.time(),
    }
    write_whole(record, json.dumps(found, indent=1) + "\n")
    progress.say(f"{name} is {published.address.rpartition('/')[2]}, {published.checksum}")
    return published


def _pinned(name: VendorName, pin: Checksum, mirror: str | None, store: Store) -> Published:
    """The image that a pin insists on: in the store, or what the vendor publishes now."""
    if entry := store.entry("images", pin.key):
        return Published(address=_address_in(entry), checksum=pin, sums="the name itself")
    published = resolve(name, read_text, mirror=mirror)
    if published.checksum != pin:
        raise ImageError(
            f"the image {name}@{pin} is not in the store, and the vendor publishes another one now:\n"
            f"  expected {pin}\n  found    {published.checksum} ({without_secrets(published.sums)})",
            hint="write the new checksum, or find the file that has yours and set vmsnap_image to its path",
        )
    return published


def _address_in(entry: Path) -> str:
    try:
        return str(json.loads((entry / META).read_text())["address"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""  # needed only to fetch it again


def _entry(name: VendorName, published: Published, store: Store, progress: Progress) -> Path:
    return fetch_into_store(
        published.address,
        published.checksum,
        what=str(name),
        expected=f"by {without_secrets(published.sums)}",
        hint=f"if the vendor has replaced the image, take the new one: vmsnap pull {name}",
        store=store,
        progress=progress,
    )
