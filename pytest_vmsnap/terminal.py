"""Lines that a person sees at once, although pytest captures what tests print."""

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
BEGUN = -2  # pytest's reporter: a line that is no file's


class Terminal:
    """Writes lines to where pytest's own go, in the midst of a test too.

    Create it in ``pytest_configure``, where nothing is captured. A worker of xdist has no terminal: there
    lines go to `relay`. Without pytest's terminal and with ``-qq`` they are only logged.
    """

    def __init__(self, config: pytest.Config, *, relay: Callable[[str], None] | None = None) -> None:
        self._config = config
        self._relay = relay
        self._lock = threading.RLock()  # Ctrl-C may come while its thread writes
        self._stream: TextIO | None = None
        self._owned = False
        self._unended = False
        self._broken_at: tuple[object, int] | None = None
        if not hasattr(config, "workerinput") and config.get_verbosity() > SILENT_VERBOSITY:
            self._stream, self._owned = _uncaptured()

    @contextmanager
    def handed_over(self) -> Iterator[None]:
        """Leave the terminal to whoever is within: nothing is captured, of the keyboard neither.

        Afterwards pytest captures if it did before: within a test it does, between its phases it does not.
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
        """Let pytest write in one go: a line of another thread comes before or behind it."""
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
        """Show `line`, without its end, at once, as the plugin's."""
        log.debug("%s", line)
        if self._relay:
            self._relay(line)
        self.show(f"vmsnap: {line}")

    def show(self, line: str) -> None:
        """Show `line` as it is, without its end, at once."""
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        with self._lock:
            if self._stream and isinstance(reporter, pytest.TerminalReporter):
                self._stream.write(self._placed(line, reporter))
                self._stream.flush()

    def _placed(self, line: str, reporter: pytest.TerminalReporter) -> str:
        """`line` with the line ends that it needs where the reporter stands."""
        verbose = self._config.get_verbosity(pytest.Config.VERBOSITY_TEST_CASES) > 0
        among_workers = self._config.pluginmanager.has_plugin("dsession")
        if verbose and among_workers and reporter.currentfspath is not None:
            reporter.currentfspath = BEGUN  # xdist's lines begin by ending what they find begun
            return f"\n{line}"
        if verbose and not among_workers:
            # within a test's line: the reporter ends it and names the test anew, if it finds none current
            if reporter.currentfspath is not None:
                reporter.currentfspath = None
                self._unended = True
            return f"\n{line}" if self._unended else f"{line}\n"
        width = self._config.get_terminal_writer().width_of_current_line
        place = (reporter.currentfspath, width)  # does not know of our line ends
        start = "\n" if width and place != self._broken_at else ""
        self._broken_at = place
        return f"{start}{line}\n"

    def continued(self) -> None:
        """Note that pytest has written since, from the start of a line."""
        with self._lock:
            self._unended = False

    def close(self) -> None:
        """Write no more."""
        with self._lock:
            if self._stream and self._owned:
                self._stream.close()
            self._stream = None


def _uncaptured() -> tuple[TextIO, bool]:
    """A stream to where stdout goes now, whatever is captured later; and whether it is to be closed."""
    try:
        copy = os.dup(sys.stdout.fileno())
    except (io.UnsupportedOperation, AttributeError, OSError):  # stdout is an object in memory
        return sys.stdout, False
    return os.fdopen(copy, "w", encoding=sys.stdout.encoding, errors="replace"), True
