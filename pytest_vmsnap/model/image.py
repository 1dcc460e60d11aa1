"""Base images: what is asked for, and what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """What an image that is built gets beside its suite and packages.

    `files` are pairs of path and content, `links` pairs of path and target of symbolic links.
    """

    files: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()


NO_ADDITIONS = Additions()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """A base image as the user names it.

    `image` is a path, an ``http(s)://`` address or ``debian:SUITE``; None is a machine without a disk,
    which needs `kernel`. `sha256` goes with an address, `packages` and `additions` with ``debian:``; `kernel`,
    `initrd` and `cmdline` boot a path's image (or none) directly. Relative paths are relative to `root`.
    """

    image: str | None
    root: Path
    sha256: str | None = None
    packages: tuple[str, ...] = ()
    kernel: str | None = None
    initrd: str | None = None
    cmdline: str | None = None
    additions: Additions = NO_ADDITIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A base image that is there, and is never written to.

    `key` names its content (or its recipe); `origin` is what the user wrote; `disk` is None for a machine
    without one; `kernel`, `initrd` and `cmdline` are set where it boots directly; `built` is the time of
    its making (seconds since the epoch) where the plugin built it; `has_shell` if it starts the planted shell
    by itself.
    """

    key: str
    origin: str
    disk: Path | None
    format: Literal["qcow2", "raw"]
    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str | None = None
    built: float | None = None
    has_shell: bool = False
