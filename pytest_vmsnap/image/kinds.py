"""Choose how to get an image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import SpecError
from pytest_vmsnap.image import direct_boot, own_kernel
from pytest_vmsnap.image.debian import provide_debian
from pytest_vmsnap.image.local_image import provide_path
from pytest_vmsnap.image.vendors import is_vendor_name
from pytest_vmsnap.model import Image, ImageRequest, digest

if TYPE_CHECKING:
    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.store import Store

DEBIAN = "debian:"
ADDRESSES = ("http://", "https://")


def provide(request: ImageRequest, *, store: Store, progress: Progress) -> Image:
    """Find, fetch or build the base image that `request` names, check it, and return it.

    `store` keeps what is fetched or built, and does it only once if several runs need it at the same time. The
    plugin never writes to the user's own files.

    Raises `ImageError` if the image is not available, `SpecError` if parts of the request contradict each
    other, `StoreFull` if there is no space for it.
    """
    _check_parts(request)
    own_kernel.expect_usable(request)
    return own_kernel.with_modules(_provide(request, store, progress), request, store=store, progress=progress)


def _provide(request: ImageRequest, store: Store, progress: Progress) -> Image:
    image = request.image
    if image is None:
        return _without_disk(request)
    if image.startswith(DEBIAN):
        suite, added = image.removeprefix(DEBIAN), request.additions
        found = provide_debian(image, suite, request.packages, additions=added, store=store, progress=progress)
        return own_kernel.with_own_kernel(replace(found, firmware=request.firmware or "bios"), request)
    if image.startswith(ADDRESSES):
        # imported late: pooch imports requests, which would slow down every pytest run
        from pytest_vmsnap.image.download import provide_download

        return provide_download(request, image, store=store, progress=progress)
    if is_vendor_name(image):
        from pytest_vmsnap.image.vendors.provide import provide_vendor

        return provide_vendor(request, image, store=store, progress=progress)
    return provide_path(request, image)


def _check_parts(request: ImageRequest) -> None:
    """Raise `SpecError` for parts that have no meaning with this kind of image."""
    image = request.image or ""
    if request.sha256 is not None and not image.startswith(ADDRESSES):
        raise SpecError(
            f"image_sha256 is only for an image from an address, but the image is {request.image!r}",
            hint="leave image_sha256 out (in a marker: image_sha256=None)",
        )
    if request.packages and not image.startswith(DEBIAN):
        raise SpecError(
            f"packages are only for an image debian:SUITE, but the image is {request.image!r}",
            hint="leave packages out (in a marker: packages=()), and install them in the base state instead",
        )
    boots_directly = image.startswith(DEBIAN) or request.kernel is not None
    if request.firmware == "uefi-secure" and boots_directly:
        what = f"the image {image}" if request.kernel is None else "a kernel"
        raise SpecError(
            f"firmware='uefi-secure' with {what}, which boots directly: Secure Boot starts only what is signed",
            hint="use firmware='uefi', or an image whose boot loader is signed, such as ubuntu:24.04",
        )


def _without_disk(request: ImageRequest) -> Image:
    boot = direct_boot.resolve(request)
    if boot.kernel is None:
        raise SpecError("a machine without an image needs a kernel", hint="set vmsnap_kernel")
    return Image(
        key=digest({"kind": "no disk"} | boot.identity()),
        origin="no disk",
        disk=None,
        format="raw",
        kernel=boot.kernel,
        initrd=boot.initrd,
        cmdline=boot.cmdline,
        firmware=request.firmware or "bios",
    )
