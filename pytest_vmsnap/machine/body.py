"""What a `Machine` is made of: a domain with its disks, whoever made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.host import Domain


class Body(Protocol):
    """A template or a clone, as a `Machine` needs it."""

    name: str
    domain: Domain
    consoles: list[Path]

    @property
    def address(self) -> str:
        """The host's loopback address that its ports are forwarded to."""

    @property
    def netdev(self) -> str:
        """QEMU's name of its network backend, empty without one."""

    @property
    def has_screen(self) -> bool:
        """Whether it has a display."""

    def scratch(self, name: str) -> Path:
        """A path for a file that QEMU may write, and that ends with the machine."""

    def boot(self) -> None:
        """Start a new QEMU on its disks, after the last one ended."""

    def cut_power(self) -> None:
        """End its QEMU at once."""

    def log(self) -> str:
        """What QEMU printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long things may take: `command` in seconds for one command, times `factor`, as is every deadline."""

    command: float
    factor: float

    def seconds(self, timeout: float | None) -> float:
        """The time-out in seconds that holds here for one that a test gave, or None for the option's."""
        return (self.command if timeout is None else timeout) * self.factor


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleMark:
    """A place in the consoles of a machine: which of them, and the byte in it."""

    index: int
    offset: int


def mark_of(body: Body) -> ConsoleMark:
    """The end of the console as it is now."""
    last = body.consoles[-1]
    return ConsoleMark(index=len(body.consoles) - 1, offset=last.stat().st_size if last.exists() else 0)


def console_since(body: Body, mark: ConsoleMark | None = None) -> str:
    """What the console has shown since `mark` (None: since it was switched on first), over every boot."""
    mark = mark or ConsoleMark(index=0, offset=0)
    parts = []
    for index, path in enumerate(body.consoles[mark.index :]):
        data = path.read_bytes() if path.exists() else b""
        parts.append(data[mark.offset :] if index == 0 else data)
    return b"".join(parts).decode(errors="replace")
