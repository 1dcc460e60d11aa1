"""What a `Machine` is made of: a domain with its disks, whoever made it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pytest_vmsnap.guest import OUTPUT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_vmsnap.host import Domain


CONSOLE_PIECE = 1 << 20
CONSOLE_OVERLAP = 64 << 10  # a match may be so long that it lies across two pieces


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
    """How long things may take: `command` in seconds for one command, times `factor`, as is every deadline.

    `output` is how many bytes of a command's output, of a file or of a console are kept in memory.
    """

    command: float
    factor: float
    output: int = OUTPUT_LIMIT

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


def console_since(body: Body, mark: ConsoleMark | None = None, *, limit: int = OUTPUT_LIMIT) -> str:
    """What the console has shown since `mark` (None: since it was switched on first), over every boot.

    Of more than `limit` bytes it is the last ones: the guest decides how much it prints.
    """
    data = b""
    mark = mark or ConsoleMark(index=0, offset=0)
    for index in range(len(body.consoles) - 1, mark.index - 1, -1):
        start = mark.offset if index == mark.index else 0
        data = end_of_file(body.consoles[index], limit - len(data), start=start) + data
        if len(data) >= limit:
            break
    return data.decode(errors="replace")


def console_pieces(body: Body, mark: ConsoleMark) -> Iterator[tuple[ConsoleMark, str]]:
    """What the console has shown since `mark`, in pieces of up to 1 MiB, each with where it begins.

    Each piece begins with the end of the one before, so that what lies across is whole in one of them.
    """
    for index in range(mark.index, len(body.consoles)):
        path = body.consoles[index]
        if not path.exists():
            continue
        with path.open("rb") as file:
            start = mark.offset if index == mark.index else 0
            file.seek(start)
            while data := file.read(CONSOLE_PIECE):
                yield ConsoleMark(index=index, offset=start), data.decode(errors="replace")
                if len(data) < CONSOLE_PIECE:
                    break
                start = file.seek(-CONSOLE_OVERLAP, os.SEEK_CUR)


def end_of_file(path: Path, limit: int, *, start: int = 0) -> bytes:
    """The last bytes of a file, at most `limit`, and none before `start`; nothing if it is not there."""
    try:
        with path.open("rb") as file:
            file.seek(max(start, file.seek(0, os.SEEK_END) - limit))
            return file.read(limit)
    except OSError:
        return b""
