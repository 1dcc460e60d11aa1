"""Ctrl-C: the first one ends the machines and says so; the second one ends the run at once."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.session import SESSION_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

NOTICE = (
    "interrupted: tearing down fixtures and ending the machines; "
    "press Ctrl-C again to quit at once (the next run removes what is left)"
)


class Interrupt:
    """A pytest plugin that handles Ctrl-C in a run that may have machines.

    After the first Ctrl-C, SIGINT has the system's default effect until the run ends. Otherwise Python would
    turn it into an exception, which a call of libvirt delays, and for which pytest prints a page of its frames.
    """

    def __init__(self, config: pytest.Config, write: Callable[[str], None]) -> None:
        self._config = config
        self._write = write
        self._before: object = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        if isinstance(excinfo.value, KeyboardInterrupt):  # pytest.exit() comes here too
            self.note()

    @pytest.hookimpl(wrapper=True, trylast=True)  # inside pytest's wrapper, which shows the summary
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        try:
            yield
        except KeyboardInterrupt:  # otherwise pytest ends with a page of its frames, and without its summary
            if not self._config.stash[SESSION_KEY].in_use:
                raise
            self.note()
            session.exitstatus = pytest.ExitCode.INTERRUPTED

    def note(self) -> None:
        """Handle a Ctrl-C: say what happens next, and let the next one end the process."""
        is_worker = hasattr(self._config, "workerinput")  # its controller ends it
        in_main = threading.current_thread() is threading.main_thread()  # signal.signal() needs it
        if is_worker or not in_main or not self._config.stash[SESSION_KEY].in_use:
            return
        if self._before is None:
            self._before = signal.signal(signal.SIGINT, signal.SIG_DFL)
            self._write(NOTICE)

    def close(self) -> None:
        """Restore the signal's previous handler."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)  # type: ignore[arg-type] # what signal() gave
            self._before = None
