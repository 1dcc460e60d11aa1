"""What a `Machine` runs on: a domain with its disks, from a template or a clone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.host import Domain


class Backend(Protocol):
    """What a `Machine` needs from a template or a clone."""

    name: str
    domain: Domain
    consoles: list[Path]

    @property
    def address(self) -> str:
        """The loopback address on the host to which the machine's ports are forwarded."""

    @property
    def netdev(self) -> str:
        """QEMU's name of the machine's network backend; empty if it has no network."""

    @property
    def has_screen(self) -> bool:
        """Whether the machine has a display."""

    def scratch(self, name: str) -> Path:
        """Return a path for a file that QEMU may write; the file is removed with the machine."""

    def boot(self) -> None:
        """Start a new QEMU on the machine's disks, after the last one has ended."""

    def cut_power(self) -> None:
        """End QEMU at once."""

    def log(self) -> str:
        """Return what QEMU printed."""
