"""The terminal of a person who gets a shell in a guest."""

from __future__ import annotations

import os
import shutil
import sys
import termios
import tty
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator


PIECE = 1 << 16
ESCAPE = b"\x1d"  # Ctrl-], as in telnet(1) and virsh


class Escaped(Exception):
    """The person typed the escape character."""


@dataclass(frozen=True, slots=True)
class Terminal:
    """This process's terminal: descriptor `source` reads what is typed, descriptor `sink` shows output.

    `escape` is what the person types to leave the guest, empty for nothing.
    """

    source: int
    sink: int
    columns: int
    rows: int
    kind: str
    escape: bytes = b""

    def typed(self) -> bytes:
        """Return what was typed; raise `Escaped` if that contains `escape`."""
        data = os.read(self.source, PIECE)
        if self.escape and self.escape in data:
            raise Escaped
        return data

    def show(self, data: bytes) -> None:
        """Write all of `data`."""
        while data:
            data = data[os.write(self.sink, data) :]


@contextmanager
def terminal(
    *,
    escape: bytes = b"",
    who: str = "interact()",
    hint: str = "run pytest in a terminal, without pytest-xdist's -n",
) -> Iterator[Terminal]:
    """Yield the terminal, which passes on each key but `escape` as it is typed, until the block ends.

    Raises `HostError` with `hint` if standard input or output is no terminal; `who` names what needs one.
    """
    source, sink = sys.__stdin__, sys.__stdout__
    if not (source and sink and os.isatty(0) and os.isatty(1)):
        raise HostError(
            f"{who} needs a terminal, but standard input or output is not one",
            hint=hint,
        )
    size = shutil.get_terminal_size()
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0, termios.TCSADRAIN)  # keeps what was typed ahead
        yield Terminal(0, 1, size.columns, size.lines, os.environ.get("TERM", "linux"), escape)
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
