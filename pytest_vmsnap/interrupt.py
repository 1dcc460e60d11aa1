"""Ctrl-C: at the first the machines are ended, which is said; the second ends the run at once."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.session import SESSION_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

SAID = (
    "interrupted: what is open is torn down, and the machines are ended; "
    "Ctrl-C again ends at once, and the next start removes what is left"
)


class Interrupt:
    """What a Ctrl-C does to a run that may have machines; a plugin of its own, registered with its `config`.

    After the first, the signal has the system's own effect until the run's end: within Python it would only
    become an exception, which a call of libvirt holds up, and which pytest shows as a page of its own frames.
    """

    def __init__(self, config: pytest.Config, write: Callable[[str], None]) -> None:
        self._config = config
        self._write = write
        self._before: object = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        if isinstance(excinfo.value, KeyboardInterrupt):  # pytest.exit() comes here too
            self.note()

    @pytest.hookimpl(wrapper=True, trylast=True)  # within what shows the summary
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        try:
            yield
        except KeyboardInterrupt:  # it would end pytest without its summary, and with a page of its frames
            if not self._config.stash[SESSION_KEY].in_use:
                raise
            self.note()
            session.exitstatus = pytest.ExitCode.INTERRUPTED

    def note(self) -> None:
        """A Ctrl-C came: say what follows, and let the next one end the process."""
        is_worker = hasattr(self._config, "workerinput")  # its controller tells it to end
        in_main = threading.current_thread() is threading.main_thread()  # as signal.signal needs
        if is_worker or not in_main or not self._config.stash[SESSION_KEY].in_use:
            return
        if self._before is None:
            self._before = signal.signal(signal.SIGINT, signal.SIG_DFL)
            self._write(SAID)

    def close(self) -> None:
        """Leave the signal as it was found."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)  # type: ignore[arg-type] # what signal() gave
            self._before = None
