"""What a machine's serial console has shown, across all boots."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.guest import OUTPUT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_vmsnap.machine.backend import Backend

CONSOLE_PIECE = 1 << 20
CONSOLE_OVERLAP = 64 << 10  # bytes: a match up to this long is found across two pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleMark:
    """A place in a machine's consoles: the `index` of the console (one for each QEMU), and the byte in it."""

    index: int
    offset: int


def mark_of(backend: Backend) -> ConsoleMark:
    """Return the current end of the console."""
    last = backend.consoles[-1]
    return ConsoleMark(index=len(backend.consoles) - 1, offset=last.stat().st_size if last.exists() else 0)


def console_since(backend: Backend, mark: ConsoleMark | None = None, *, limit: int = OUTPUT_LIMIT) -> str:
    """Return what the console has shown since `mark` (None: since the first power-on), across all boots.

    Returns at most the last `limit` bytes, because the guest decides how much it prints.
    """
    data = b""
    mark = mark or ConsoleMark(index=0, offset=0)
    for index in range(len(backend.consoles) - 1, mark.index - 1, -1):
        start = mark.offset if index == mark.index else 0
        data = end_of_file(backend.consoles[index], limit - len(data), start=start) + data
        if len(data) >= limit:
            break
    return data.decode(errors="replace")


def console_pieces(backend: Backend, mark: ConsoleMark) -> Iterator[tuple[ConsoleMark, str]]:
    """Yield what the console has shown since `mark`, in pieces of up to 1 MiB, each with its start.

    Each piece begins with the end of the previous one, so that a match across both is complete in one of them.
    """
    for index in range(mark.index, len(backend.consoles)):
        path = backend.consoles[index]
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
    """Return the last `limit` bytes of a file at most, none before `start`; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(start, file.seek(0, os.SEEK_END) - limit))
            return file.read(limit)
    except OSError:
        return b""
