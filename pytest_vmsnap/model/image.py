"""Base images: what is requested, and what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.model.spec import Firmware


MODULES_LABEL = "vmsnap-modules"  # of the file system with the modules of the user's kernel, and of its disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """What a built image gets in addition to its suite and packages.

    `files` are pairs of path and content, `links` are symbolic links: pairs of path and target.
    """

    files: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()


NO_ADDITIONS = Additions()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """A base image as the user names it.

    `image` is a path, an ``http(s)://`` address, ``debian:SUITE`` or a vendor's ``NAME:VERSION``; None means a
    machine without a disk, which needs `kernel`. `sha256` belongs to an address, `packages` and `additions`
    belong to ``debian:``; `kernel`, `initrd` and `cmdline` directly boot an image, or no image; `modules` is
    the directory of that kernel's modules. `firmware` is None if the image decides; `mirror` has the vendors'
    images. Relative paths are relative to `root`.
    """

    image: str | None
    root: Path
    sha256: str | None = None
    packages: tuple[str, ...] = ()
    kernel: str | None = None
    initrd: str | None = None
    cmdline: str | None = None
    modules: str | None = None
    firmware: Firmware | None = None
    mirror: str | None = None
    additions: Additions = NO_ADDITIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A base image that exists; nothing ever writes to it.

    `key` identifies its content (or its recipe); `origin` is what the user wrote; `disk` is None for a machine
    without one; `kernel`, `initrd` and `cmdline` are set if it boots directly; `firmware` is what boots it;
    `modules` is a file system with the modules of the kernel of the release `modules_release`;
    `built` is when the plugin built it (seconds since the epoch), if it did; `has_shell` says whether it starts
    the guest shell by itself.
    """

    key: str
    origin: str
    disk: Path | None
    format: Literal["qcow2", "raw"]
    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str | None = None
    firmware: Firmware = "bios"
    modules: Path | None = None
    modules_release: str = ""
    built: float | None = None
    has_shell: bool = False
