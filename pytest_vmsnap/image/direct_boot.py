"""Kernel, initrd and command line that the user gives with an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import SpecError
from pytest_vmsnap.image import files

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.model import ImageRequest

DEFAULT_CMDLINE = "root=/dev/vda rw console=ttyS0 no_timer_check"


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectBoot:
    """What a machine boots directly; all None if it boots from its disk."""

    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str | None = None

    def identity(self) -> dict[str, Any]:
        """The parts of an image's key."""
        return {
            "kernel": files.identity(self.kernel) if self.kernel else None,
            "initrd": files.identity(self.initrd) if self.initrd else None,
            "cmdline": self.cmdline,
        }


def resolve(request: ImageRequest) -> DirectBoot:
    """Find and check the files that `request` names.

    Raises `SpecError` for an initrd or a command line without a kernel, `ImageError` for a file that cannot
    be used.
    """
    if request.kernel is None:
        for name in ("initrd", "cmdline"):
            if getattr(request, name) is not None:
                raise SpecError(
                    f"{name}={getattr(request, name)!r} needs a kernel: without one, the disk boots its own",
                    hint=f"set vmsnap_kernel, or leave {name} out",
                )
        return DirectBoot()
    return DirectBoot(
        kernel=files.find(request.kernel, request.root, what="kernel"),
        initrd=files.find(request.initrd, request.root, what="initrd") if request.initrd else None,
        cmdline=request.cmdline if request.cmdline is not None else DEFAULT_CMDLINE,
    )
