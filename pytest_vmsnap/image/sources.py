"""Which way an image is to be had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.errors import SpecError
from pytest_vmsnap.image import direct_boot
from pytest_vmsnap.image.debian import provide_debian
from pytest_vmsnap.image.path import provide_path
from pytest_vmsnap.model import Image, ImageRequest, digest

if TYPE_CHECKING:
    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.store import Store

DEBIAN = "debian:"
ADDRESSES = ("http://", "https://")


def provide(request: ImageRequest, *, store: Store, progress: Progress) -> Image:
    """The base image that `request` names: found, fetched or built, and checked.

    What is fetched or built is kept in `store`, and made once however many runs ask for it at once. A file
    of the user's is never written to.

    Raises `ImageError` where the image cannot be had, `SpecError` where parts of the request contradict each
    other, `StoreFull` where there is no space for it.
    """
    image = request.image
    _check_parts(request)
    if image is None:
        return _without_disk(request)
    if image.startswith(DEBIAN):
        suite, added = image.removeprefix(DEBIAN), request.additions
        return provide_debian(image, suite, request.packages, additions=added, store=store, progress=progress)
    if image.startswith(ADDRESSES):
        # pooch brings requests, which every pytest run would wait for
        from pytest_vmsnap.image.download import provide_download

        return provide_download(request, image, store=store, progress=progress)
    return provide_path(request, image)


def _check_parts(request: ImageRequest) -> None:
    """Raises `SpecError` for parts that have no meaning with this kind of image."""
    image = request.image or ""
    if request.sha256 is not None and not image.startswith(ADDRESSES):
        raise SpecError(
            f"image_sha256 goes with an address, and the image is {request.image!r}",
            hint="leave image_sha256 out (in a marker: image_sha256=None)",
        )
    if request.packages and not image.startswith(DEBIAN):
        raise SpecError(
            f"packages go with debian:SUITE, and the image is {request.image!r}",
            hint="leave packages out (in a marker: packages=()), and install them in the base state instead",
        )
    if image.startswith(DEBIAN) and (request.kernel or request.initrd or request.cmdline is not None):
        raise SpecError(
            f"{request.image} brings its own kernel, initrd and cmdline",
            hint="leave kernel, initrd and cmdline out (in a marker: kernel=None)",
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
    )
