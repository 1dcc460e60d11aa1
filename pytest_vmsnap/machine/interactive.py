"""A shell in the guest for the person at the terminal."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from pytest_vmsnap.errors import GuestGone, GuestHung
from pytest_vmsnap.guest import terminal
from pytest_vmsnap.machine.commands import Commands

AtTerminal = Callable[[], AbstractContextManager[object]]


class Interactive(Commands):
    """A machine at the terminal of whoever runs the tests."""

    _at_terminal: AtTerminal

    def interact(self) -> None:
        """Give the person at the terminal a shell in the guest; returns when they leave it, by ``exit``.

        Raises `HostError` where there is no terminal, `SpecError` where the channel cannot (the guest agent).
        """
        __tracebackhide__ = True
        self._expect_usable()
        with self._at_terminal(), terminal() as person:
            person.show(f"\r\nvmsnap: a shell in {self.name}; `exit` goes on with the test\r\n".encode())
            try:
                self._channel.interact(person)
            except (GuestGone, GuestHung) as error:
                raise self._explained("while somebody used its shell", error) from error
            person.show(b"\r\n")
