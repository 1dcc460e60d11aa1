"""Collects what a report shows about the machines of a test, and what is kept of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import SHOWN_BYTES, tail
from pytest_vmsnap.evidence.artifact_directories import Archive
from pytest_vmsnap.evidence.collectors import collect, format_command
from pytest_vmsnap.readable import readable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_vmsnap.evidence.artifact import Artifact
    from pytest_vmsnap.machine import History

log = logging.getLogger("pytest_vmsnap.evidence")

SECONDS = 5.0  # for all collectors of a test together, times the factor on deadlines
CONSOLE_LINES = 40
COMMANDS = 10
OUTPUT_LINES = 5  # of each stream of a command


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedEvidence:
    """What was found: `sections` of a report (title and text), and the `directory` of the `artifacts`."""

    sections: tuple[tuple[str, str], ...] = ()
    directory: Path | None = None
    artifacts: tuple[Artifact, ...] = ()


class Evidence:
    """Collects the evidence of one run, which `run` identifies, and writes the artifacts to `directory`.

    If `directory` is None, no artifacts are collected. `factor` returns the factor on deadlines.
    """

    def __init__(self, directory: Path | None, *, run: str, factor: Callable[[], float]) -> None:
        self._archive = Archive(directory, run=run) if directory else None
        self._factor = factor
        self._sections: list[tuple[str, str]] = []
        self._artifacts: list[Artifact] = []
        self._notes: list[str] = []

    def observe(self, *histories: History) -> None:
        """Collect from machines that end now; the next report includes it."""
        for history in histories:
            self._sections += _sections(history)
        if self._archive:
            artifacts, notes = collect(histories, seconds=SECONDS * self._factor())
            self._artifacts += artifacts
            self._notes += notes

    def report(self, test: str, histories: Sequence[History]) -> CollectedEvidence:
        """Return the evidence from the machines of `test`, and from those observed before."""
        self.observe(*histories)
        sections, artifacts, notes = self._sections, self._artifacts, self._notes
        self._sections, self._artifacts, self._notes = [], [], []
        directory = None
        if self._archive and artifacts:
            try:
                directory = self._archive.write(test, artifacts, notes)
            except OSError as error:
                notes.append(f"the artifacts could not be written to {error.filename}: {error.strerror}")
                log.warning("evidence of %s: %s", test, notes[-1])
        if directory or notes:
            lines = [f"{directory}: {', '.join(artifact.name for artifact in artifacts)}"] if directory else []
            sections.append(("Artifacts of vmsnap", "\n".join([*lines, *notes])))
        return CollectedEvidence(sections=tuple(sections), directory=directory, artifacts=tuple(artifacts))


def _sections(history: History) -> list[tuple[str, str]]:
    """Return the sections of a report (title and text): the ends of the console and of the commands."""
    name = history.title
    lines = [
        line for record in history.records[-COMMANDS:] for line in format_command(record, lines=OUTPUT_LINES)
    ]
    when = "during this test" if history.since else f"({history.label})"
    found = [
        (f"Console of {name} {when}", tail(readable(history.console(SHOWN_BYTES)), CONSOLE_LINES)),
        (f"Last commands in {name}", readable("\n".join(lines))),
    ]
    return [(title, text) for title, text in found if text]
