"""A shell in the guest for the person at the terminal."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from pytest_vmsnap.errors import GuestGone, GuestHung
from pytest_vmsnap.guest import terminal
from pytest_vmsnap.machine.commands import Commands

AtTerminal = Callable[[], AbstractContextManager[object]]


class Interactive(Commands):
    """A machine's shell, at the terminal of the person who runs the tests."""

    _at_terminal: AtTerminal

    def interact(self) -> None:
        """Open a shell in the guest at your terminal; return when you leave it with ``exit``.

        Raises `HostError` without a terminal, `SpecError` if the channel does not support it (the guest agent).
        """
        __tracebackhide__ = True
        self._expect_usable()
        with self._at_terminal(), terminal() as person:
            person.show(f"\r\nvmsnap: a shell in {self._history.title}; `exit` continues the test\r\n".encode())
            try:
                self._channel.interact(person)
            except (GuestGone, GuestHung) as error:
                raise self._explained("during interact()", error) from error
            person.show(b"\r\n")
