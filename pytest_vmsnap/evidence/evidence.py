"""What is shown and kept of a test whose machines have something to say."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import SHOWN_BYTES, tail
from pytest_vmsnap.evidence.archive import Archive
from pytest_vmsnap.evidence.collectors import collect, told
from pytest_vmsnap.readable import readable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_vmsnap.evidence.pieces import Piece
    from pytest_vmsnap.machine import Trail

log = logging.getLogger("pytest_vmsnap.evidence")

SECONDS = 5.0  # for all that is collected of a test, times the factor on deadlines
CONSOLE_LINES = 40
COMMANDS = 10
OUTPUT_LINES = 5  # of each stream of a command that is shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Testimony:
    """What was found: `sections` of a report (title and text), the `directory` it is kept in, its `pieces`."""

    sections: tuple[tuple[str, str], ...] = ()
    directory: Path | None = None
    pieces: tuple[Piece, ...] = ()


class Evidence:
    """Collects for one run; `directory` is where it is kept, None to keep none; `run` tells runs apart.

    `factor` tells by how much deadlines are stretched.
    """

    def __init__(self, directory: Path | None, *, run: str, factor: Callable[[], float]) -> None:
        self._archive = Archive(directory, run=run) if directory else None
        self._factor = factor
        self._sections: list[tuple[str, str]] = []
        self._pieces: list[Piece] = []
        self._notes: list[str] = []

    def observe(self, *trails: Trail) -> None:
        """Collect of machines that end now; the next report has it."""
        for trail in trails:
            self._sections += _sections(trail)
        if self._archive:
            pieces, notes = collect(trails, seconds=SECONDS * self._factor())
            self._pieces += pieces
            self._notes += notes

    def report(self, test: str, trails: Sequence[Trail]) -> Testimony:
        """What the machines of `test` have to say, beside what was observed before."""
        self.observe(*trails)
        sections, pieces, notes = self._sections, self._pieces, self._notes
        self._sections, self._pieces, self._notes = [], [], []
        directory = None
        if self._archive and pieces:
            try:
                directory = self._archive.write(test, pieces, notes)
            except OSError as error:
                notes.append(f"it cannot be kept in {error.filename}: {error.strerror}")
                log.warning("evidence of %s: %s", test, notes[-1])
        if directory or notes:
            lines = [f"{directory}: {', '.join(piece.name for piece in pieces)}"] if directory else []
            sections.append(("Evidence of vmsnap", "\n".join([*lines, *notes])))
        return Testimony(sections=tuple(sections), directory=directory, pieces=tuple(pieces))


def _sections(trail: Trail) -> list[tuple[str, str]]:
    """Title and text of what is shown at once: the ends of the console and of what was run."""
    name = trail.body.domain.name if trail.body else trail.label
    lines = [line for deed in trail.deeds[-COMMANDS:] for line in told(deed, lines=OUTPUT_LINES)]
    when = "during this test" if trail.since else f"({trail.label})"
    found = [
        (f"Console of {name} {when}", tail(readable(trail.console(SHOWN_BYTES)), CONSOLE_LINES)),
        (f"Last commands in {name}", readable("\n".join(lines))),
    ]
    return [(title, text) for title, text in found if text]
