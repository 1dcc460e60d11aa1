"""Progress lines for steps that take longer than a second."""

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
    """A step that the user waits for; `say` sets a detail that the next line shows."""

    def __init__(self, what: str, write: Callable[[str], None]) -> None:
        self._what = what
        self._write = write
        self._detail: Callable[[], str] = str
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="vmsnap-progress", daemon=True)
        self._shown = False

    def start(self) -> None:
        """Show the step from now on, until it ends."""
        self._watcher.start()

    def say(self, detail: str) -> None:
        """Set how far the step is, e.g. ``"120 of 300 MB"``; the next line that is due shows it."""
        self._detail = lambda: detail

    def follow(self, detail: Callable[[], str]) -> None:
        """Have the next lines show what `detail` returns when they are due."""
        self._detail = detail

    def end(self, outcome: str) -> None:
        """Write how the step ended, if it was shown: after each line that the watcher still writes."""
        self._ended.set()
        self._watcher.join()
        log.info("%s: %s after %.2f s", self._what, outcome, time.monotonic() - self._started)
        if self._shown:
            self._write(f"{self._what}: {outcome} after {time.monotonic() - self._started:.0f} s")

    def _watch(self) -> None:
        """Write a line after `QUIET_SECONDS`, then every `REPEAT_SECONDS`, until the step ends."""
        wait = QUIET_SECONDS
        while not self._ended.wait(wait):
            seconds = f" ({time.monotonic() - self._started:.0f} s)" if self._shown else ""
            detail = self._detail()
            self._write(f"{self._what}{': ' + detail if detail else ' ...'}{seconds}")
            self._shown = True
            wait = REPEAT_SECONDS


class Progress:
    """Reports the steps that the user waits for, with `write`, which takes a line without its line end.

    Steps that take less than a second are not shown, and with `quiet` no steps are; all are logged.
    """

    def __init__(self, write: Callable[[str], None], *, quiet: bool = False) -> None:
        self._write = write
        self._write_step = log.debug if quiet else write

    @contextmanager
    def step(self, what: str) -> Iterator[Step]:
        """Show the step `what` while the ``with`` block runs."""
        step = Step(what, self._write_step)
        step.start()
        outcome = "failed"
        try:
            yield step
            outcome = "done"
        finally:
            step.end(outcome)

    def say(self, line: str) -> None:
        """Write `line` at once."""
        self._write(line)


def silent() -> Progress:
    """A `Progress` that only logs."""
    return Progress(log.debug)
