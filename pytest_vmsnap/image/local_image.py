"""An image at a path of the user."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ImageError
from pytest_vmsnap.image import bootable, direct_boot, files, inspection
from pytest_vmsnap.model import Image, ImageRequest, digest

if TYPE_CHECKING:
    from pathlib import Path

KINDS = (
    "an image is a path, an http:// or https:// address, debian:SUITE (e.g. debian:trixie), or a vendor's name "
    "(e.g. ubuntu:24.04); `vmsnap images` lists the names"
)


def provide_path(request: ImageRequest, written: str) -> Image:
    """Return the image at the path `written`, with the kernel that `request` names, without a copy or change.

    Raises `ImageError` or `SpecError` as `describe` does.
    """
    try:
        path = files.find(written, request.root, what="image")
    except ImageError as error:
        if re.match(r"\w+:", written) or written == "debian":
            raise ImageError(
                f"{error.message}, and {written!r} is no address or suite either", hint=KINDS
            ) from error
        raise
    return describe(request, path, origin=written)


def describe(request: ImageRequest, path: Path, *, origin: str, content: str | None = None) -> Image:
    """Check the image in the file `path` and return it, with the kernel that `request` names.

    `content` identifies its content if known (then the image must not refer to other files); else the key is
    made from `files.identity`. Raises `ImageError` if it cannot be used or booted, `SpecError` as
    `direct_boot.resolve` does.
    """
    boot = direct_boot.resolve(request)
    disk = inspection.inspect(path, alone=content is not None)
    firmware = request.firmware or "bios"
    if boot.kernel is None:
        firmware = bootable.firmware_for(disk, request.firmware)
    parts = [content] if content else [files.identity(file) for file in disk.files]
    return Image(
        key=digest({"kind": "disk", "files": parts, "format": disk.format} | boot.identity()),
        origin=origin,
        disk=path,
        format=disk.format,
        kernel=boot.kernel,
        initrd=boot.initrd,
        cmdline=boot.cmdline,
        firmware=firmware,
    )
