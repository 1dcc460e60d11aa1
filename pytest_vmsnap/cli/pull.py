"""Fetch vendors' images, or the newest ones if the vendors have replaced them."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.cli import stored_states
from pytest_vmsnap.errors import ImageError
from pytest_vmsnap.image.vendors import is_vendor_name, parse_name
from pytest_vmsnap.progress import Progress

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.image.vendors import VendorName
    from pytest_vmsnap.model import Settings

NAME = "pull"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vmsnap pull`."""
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="a vendor's image, e.g. ubuntu:24.04 (see vmsnap images)"
    )
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Fetch each image. Raises `ImageError` for an unknown name, or if the vendor does not have it."""
    from pytest_vmsnap.image.vendors.provide import fetch, resolution_of  # late: it imports requests

    names = [_name(image) for image in arguments.images]
    store = stored_states.open_store(settings)
    for name in names:
        before = resolution_of(store, name)
        now = fetch(name, mirror=settings.image_mirror, store=store, progress=Progress(print))
        is_same = before is not None and before.published.checksum == now.checksum
        print(f"{name}: {now.checksum}, {'as before' if is_same else 'new'}")
    return 0


def _name(image: str) -> VendorName:
    if not is_vendor_name(image):
        raise ImageError(f"{image!r} is not a vendor's image", hint="`vmsnap images` lists the names")
    return parse_name(image)
