"""What a person sees while something takes longer than a second."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger("pytest_vmsnap.progress")

QUIET_SECONDS = 1.0
REPEAT_SECONDS = 15.0


class Step:
    """One thing that is waited for; `say` adds a detail that the next line shows."""

    def __init__(self, what: str, write: Callable[[str], None]) -> None:
        self._what = what
        self._write = write
        self._detail = ""
        self._started = time.monotonic()
        self._ended = threading.Event()
        self.shown = False

    def say(self, detail: str) -> None:
        """Note how far the step is, e.g. ``"120 of 300 MB"``; shown at the next line that is due."""
        self._detail = detail

    def watch(self) -> None:
        """Write a line after the first second, and from then on now and again, until the step has ended."""
        wait = QUIET_SECONDS
        while not self._ended.wait(wait):
            seconds = f" ({time.monotonic() - self._started:.0f} s)" if self.shown else ""
            self._write(f"{self._what}{': ' + self._detail if self._detail else ' ...'}{seconds}")
            self.shown = True
            wait = REPEAT_SECONDS

    def end(self, outcome: str) -> None:
        self._ended.set()
        log.info("%s: %s after %.2f s", self._what, outcome, time.monotonic() - self._started)
        if self.shown:
            self._write(f"{self._what}: {outcome} after {time.monotonic() - self._started:.0f} s")


class Progress:
    """Says what is waited for, through `write`, which takes a line without its end.

    Steps of less than a second are not shown, and none where it is `quiet`; all are logged.
    """

    def __init__(self, write: Callable[[str], None], *, quiet: bool = False) -> None:
        self._write = write
        self._write_step = log.debug if quiet else write

    @contextmanager
    def step(self, what: str) -> Iterator[Step]:
        """Show `what` for as long as the body runs."""
        step = Step(what, self._write_step)
        watcher = threading.Thread(target=step.watch, name="vmsnap-progress", daemon=True)
        watcher.start()
        outcome = "failed"
        try:
            yield step
            outcome = "done"
        finally:
            step.end(outcome)
            watcher.join()

    def say(self, line: str) -> None:
        """Write `line` at once."""
        self._write(line)


def silent() -> Progress:
    """Progress that only logs."""
    return Progress(log.debug)
