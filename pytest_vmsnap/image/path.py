"""An image that the user has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ImageError
from pytest_vmsnap.image import bootable, direct_boot, files, inspection
from pytest_vmsnap.model import Image, ImageRequest, digest

if TYPE_CHECKING:
    from pathlib import Path

KINDS = "an image is a path, an http:// or https:// address, or debian:SUITE (e.g. debian:trixie)"


def provide_path(request: ImageRequest, written: str) -> Image:
    """The image at the path `written`, with the kernel that `request` names; nothing is copied or changed."""
    try:
        path = files.find(written, request.root, what="image")
    except ImageError as error:
        if re.match(r"\w+:", written) or written == "debian":
            raise ImageError(
                f"{error.message}, and {written!r} is no other kind of image", hint=KINDS
            ) from error
        raise
    return describe(request, path, origin=written)


def describe(request: ImageRequest, path: Path, *, origin: str, content: str | None = None) -> Image:
    """The image in the file `path`, checked, with the kernel that `request` names.

    `content` names its content where that is known (then it must stand alone); else the key is made from
    what the files look like from outside. Raises `ImageError` where it cannot be used, or not booted from.
    """
    boot = direct_boot.resolve(request)
    disk = inspection.inspect(path, alone=content is not None)
    if boot.kernel is None:
        bootable.expect_bootable(disk)
    parts = [content] if content else [files.identity(file) for file in disk.files]
    return Image(
        key=digest({"kind": "disk", "files": parts, "format": disk.format} | boot.identity()),
        origin=origin,
        disk=path,
        format=disk.format,
        kernel=boot.kernel,
        initrd=boot.initrd,
        cmdline=boot.cmdline,
    )
