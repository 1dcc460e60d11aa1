"""The serial console on a person's terminal."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import GuestGone

if TYPE_CHECKING:
    from pytest_vmsnap.guest.terminal import Terminal
    from pytest_vmsnap.host import Domain

PIECE = 1 << 16
SHOWN_BYTES = 2000  # of the console's earlier output, shown first


def attach(domain: Domain, terminal: Terminal) -> None:
    """Connect the terminal to the serial console, until the person escapes or the guest ends.

    Raises `Escaped` if the person types the escape character, `GuestGone` if the guest has already ended.
    """
    with socket.socket(socket.AF_UNIX) as end:
        try:
            end.connect(str(domain.serial))
        except OSError as error:
            raise GuestGone(f"cannot connect to the serial console of {domain.name}: {error}") from error
        terminal.show(domain.console_text()[-SHOWN_BYTES:].replace("\n", "\r\n").encode())
        while True:
            ready, _, _ = select.select([end.fileno(), terminal.source], [], [])
            if terminal.source in ready:
                end.sendall(terminal.typed())
            if end.fileno() in ready:
                if not (data := end.recv(PIECE)):
                    return
                terminal.show(data)
