"""A kernel of the user's own, with any image, and the kernel's modules.

The modules are a disk of the machine: nothing of the image changes. For ``debian:SUITE`` the initrd loads those
that the boot needs, and mounts that disk; for other images, it is mounted after the boot.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ImageError, SpecError
from pytest_vmsnap.image import commands, direct_boot, files
from pytest_vmsnap.image.debian.initrd import with_other_modules
from pytest_vmsnap.model import MODULES_LABEL, Image, ImageRequest, digest

if TYPE_CHECKING:
    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.store import Store

DISK, INITRD = "modules.ext4", "initrd"
LISTING = "modules.dep"
PLACES = ("", "*", "lib/modules/*", "usr/lib/modules/*")
SPARE_BYTES = 8 << 20  # for the file system's own tables, in addition to an eighth of the content


def expect_usable(request: ImageRequest) -> None:
    """Check what `request` says of the kernel, before an image is fetched or built for it.

    Raises `ImageError` if a file cannot be used, `SpecError` for an initrd or modules without a kernel.
    """
    if request.kernel is not None or request.initrd is not None:
        direct_boot.resolve(request)
    if request.modules is not None:
        if request.kernel is None:
            raise SpecError(
                f"modules={request.modules!r} needs a kernel: these are its modules", hint="set vmsnap_kernel"
            )
        find_modules(request.modules, request.root)


def with_own_kernel(image: Image, request: ImageRequest) -> Image:
    """Return `image`, which is ``debian:SUITE``, with the kernel, initrd and command line of `request`.

    Raises `ImageError` if a file cannot be used.
    """
    boot = direct_boot.DirectBoot(cmdline=request.cmdline)
    if request.kernel is not None:
        boot = direct_boot.resolve(request)
    elif request.cmdline is None:
        return image
    return replace(
        image,
        key=digest({"image": image.key} | boot.identity()),
        kernel=boot.kernel or image.kernel,
        initrd=boot.initrd or image.initrd,
        cmdline=image.cmdline if request.cmdline is None else request.cmdline,
    )


def with_modules(image: Image, request: ImageRequest, *, store: Store, progress: Progress) -> Image:
    """Return `image` with the modules of `request`, as a file system in the store; `image` itself without any.

    Raises `ImageError` if they cannot be used.
    """
    if request.modules is None:
        return image
    source = find_modules(request.modules, request.root)
    own_initrd = request.initrd is None and image.has_shell
    key = digest({"kind": "modules", "image": image.key, "files": _identity(source), "initrd": own_initrd})

    def fill(draft: Path) -> None:
        with progress.step(f"preparing the modules of the kernel {source.name}"):
            _write_disk(source, draft / DISK)
            if own_initrd and image.initrd:
                with_other_modules(image.initrd, source, draft / INITRD)

    entry = store.provide("images", key, f"modules of the kernel {source.name}", fill)
    initrd = entry / INITRD if own_initrd else image.initrd
    return replace(image, key=key, initrd=initrd, modules=entry / DISK, modules_release=source.name)


def find_modules(written: str, root: Path) -> Path:
    """The directory of modules, named by the kernel's release, in the directory `written` by the user.

    Raises `ImageError` if there is none, or more than one.
    """
    place = Path(os.path.abspath(root / Path(written).expanduser()))  # noqa: PTH100 - keeps links
    if not place.is_dir():
        raise ImageError(f"the modules {place} are not a directory", hint="name what modules_install wrote")
    found = sorted(
        {path.parent for pattern in PLACES for path in place.glob(f"{pattern}/{LISTING}".lstrip("/"))}
    )
    if not found:
        raise ImageError(
            f"there are no kernel modules in {place}: no {LISTING} there, and none in lib/modules/RELEASE",
            hint="`make modules_install INSTALL_MOD_PATH=DIR` writes it; for modules from a package, run "
            "`depmod -b DIR RELEASE`",
        )
    if len(found) > 1:
        raise ImageError(
            f"{place} has modules of several kernels: {', '.join(path.name for path in found)}",
            hint=f"name one of them, e.g. {found[-1]}",
        )
    return found[0]


def _identity(source: Path) -> list[object]:
    """What changes if the modules change: name, size and time of each file."""
    found = []
    for directory, _, names in os.walk(source):
        for name in names:
            path = Path(directory, name)
            status = path.lstat()
            found.append([str(path.relative_to(source)), status.st_size, status.st_mtime_ns])
    return [files.identity(source), *sorted(found)]


def _write_disk(source: Path, target: Path) -> None:
    size = sum(path.lstat().st_size + 4096 for path in source.rglob("*"))
    size += size // 8 + SPARE_BYTES
    options = ("-t", "ext4", "-m", "0", "-L", MODULES_LABEL, "-O", "^has_journal", "-E", "root_owner=0:0")
    commands.run(
        ["mke2fs", "-q", "-F", *options, "-d", str(source), str(target), f"{size >> 10}k"],
        failed=f"the modules in {source} cannot be written to a disk",
        install="install e2fsprogs",
    )
