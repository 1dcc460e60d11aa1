"""Check whether the base image is available, without fetching or building it, for `vmsnap doctor`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ImageError, VmsnapError
from pytest_vmsnap.image.debian import MISSING_KEYS, build_mode, has_keys, key_of, plan_of
from pytest_vmsnap.image.kinds import ADDRESSES, DEBIAN
from pytest_vmsnap.image.local_image import provide_path
from pytest_vmsnap.image.vendors import is_vendor_name, parse_name
from pytest_vmsnap.model import Finding, not_checked, ok
from pytest_vmsnap.model.settings import masked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_vmsnap.model import ImageRequest


def check_image(request: ImageRequest, store: Path) -> Iterator[Finding]:
    """Yield findings about the image of `request` and the tools to build it; `store` need not exist."""
    image = request.image
    if image and image.startswith(DEBIAN):
        yield from _debian(request, image, store)
        return
    yield _other(request, image)
    yield not_checked("image-tools", "only debian:SUITE is built here", status="ok")


def _other(request: ImageRequest, image: str | None) -> Finding:
    if image is None:
        return ok("image", f"none: the kernel {request.kernel} boots without a disk")
    if image.startswith(ADDRESSES):
        return ok("image", f"{masked(image)}, fetched once and kept in the store")
    try:
        if is_vendor_name(image):
            name = parse_name(image)
            return ok("image", f"{name} ({name.vendor.title}), fetched once and kept in the store")
        provide_path(request, image)
    except VmsnapError as error:
        return Finding(name="image", status="failure", found=error.message, advice=error.hint)
    return ok("image", image)


def _debian(request: ImageRequest, image: str, store: Path) -> Iterator[Finding]:
    try:
        plan = plan_of(image.removeprefix(DEBIAN), request.packages, additions=request.additions)
    except ImageError as error:
        yield Finding(name="image", status="failure", found=error.message, advice=error.hint)
        yield not_checked("image-tools", "no image")
        return
    is_built = os.access(store / "images" / key_of(plan), os.R_OK)
    yield ok("image", f"{image}, {'in the store' if is_built else 'built at its first use'}")
    yield _tools(is_built)


def _tools(is_built: bool) -> Finding:
    try:
        mode = build_mode()
    except ImageError as error:
        return Finding(
            name="image-tools",
            status="warning" if is_built else "failure",
            found=error.message,
            advice=error.hint,
        )
    if not has_keys():
        return Finding(
            name="image-tools", status="warning", found="Debian's archive keys are missing", advice=MISSING_KEYS
        )
    return ok("image-tools", f"mmdebstrap works in {mode} mode")
