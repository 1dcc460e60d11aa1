"""Lines that the user sees at once, although pytest captures what tests print."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

log = logging.getLogger("pytest_vmsnap.progress")

SILENT_VERBOSITY = -2  # -qq
BEGUN = -2  # currentfspath of pytest's TerminalReporter for an unended line that belongs to no file


class Terminal:
    """Writes lines to pytest's terminal, even while a test runs.

    Create it in ``pytest_configure``, when pytest does not capture yet. An xdist worker has no terminal, so its
    lines go to `relay`. Without pytest's terminal reporter, and with ``-qq``, lines are only logged.
    """

    def __init__(self, config: pytest.Config, *, relay: Callable[[str], None] | None = None) -> None:
        self._config = config
        self._relay = relay
        self._lock = threading.RLock()  # reentrant: Ctrl-C may interrupt the thread that writes
        self._stream: TextIO | None = None
        self._owned = False
        self._unended = False
        self._broken_at: tuple[object, int] | None = None
        if not hasattr(config, "workerinput") and config.get_verbosity() > SILENT_VERBOSITY:
            self._stream, self._owned = _uncaptured()

    @contextmanager
    def capture_disabled(self) -> Iterator[None]:
        """Turn off capturing, also of stdin, so that the ``with`` block can use the terminal.

        Afterwards pytest captures again if it did before: it does during a test's phases, not between them.
        """
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        if capture is None:
            yield
            return
        with capture.global_and_fixture_disabled():
            capture.suspend_global_capture(in_=True)
            yield

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logstart(self) -> Generator[None, object, object]:
        """Hold the lock while pytest writes, so that lines of other threads come before or after its output."""
        with self._lock:
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self) -> Generator[None, object, object]:
        with self._lock:
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logfinish(self) -> Generator[None, object, object]:
        with self._lock:
            return (yield)

    def write(self, line: str) -> None:
        """Show `line` (without a line end) at once, marked as the plugin's; log and relay it."""
        log.debug("%s", line)
        if self._relay:
            self._relay(line)
        self.show(f"vmsnap: {line}")

    def show(self, line: str) -> None:
        """Show `line` (without a line end) at once, as it is."""
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        with self._lock:
            if self._stream and isinstance(reporter, pytest.TerminalReporter):
                self._stream.write(self._placed(line, reporter))
                self._stream.flush()

    def _placed(self, line: str, reporter: pytest.TerminalReporter) -> str:
        """`line` with the line ends that it needs at the reporter's current position."""
        verbose = self._config.get_verbosity(pytest.Config.VERBOSITY_TEST_CASES) > 0
        among_workers = self._config.pluginmanager.has_plugin("dsession")
        if verbose and among_workers and reporter.currentfspath is not None:
            reporter.currentfspath = BEGUN  # so that xdist ends this line before it writes its own
            return f"\n{line}"
        if verbose and not among_workers:
            # within a test's line: the reporter ends it, and repeats the test's name if none is current
            if reporter.currentfspath is not None:
                reporter.currentfspath = None
                self._unended = True
            return f"\n{line}" if self._unended else f"{line}\n"
        width = self._config.get_terminal_writer().width_of_current_line
        place = (reporter.currentfspath, width)  # they do not account for the line ends that we write
        start = "\n" if width and place != self._broken_at else ""
        self._broken_at = place
        return f"{start}{line}\n"

    def continued(self) -> None:
        """Note that pytest has ended our last line since."""
        with self._lock:
            self._unended = False

    def close(self) -> None:
        """Stop writing."""
        with self._lock:
            if self._stream and self._owned:
                self._stream.close()
            self._stream = None


def _uncaptured() -> tuple[TextIO, bool]:
    """A stream to where stdout goes now, even if pytest captures later; and whether to close it."""
    try:
        copy = os.dup(sys.stdout.fileno())
    except (io.UnsupportedOperation, AttributeError, OSError):  # stdout is an object in memory
        return sys.stdout, False
    return os.fdopen(copy, "w", encoding=sys.stdout.encoding, errors="replace"), True
