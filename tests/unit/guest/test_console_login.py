"""The serial console as a way in, with guests that print as they like."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.guest.bootstrap.console import ConsoleLogin, ViaConsole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def flooding(tmp_path: Path) -> Iterator[Path]:
    """The socket of a console that prints without a pause, as a firmware's menu does."""
    path = tmp_path / "serial"
    ended = threading.Event()

    def print_on() -> None:
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            while not ended.is_set():
                connection.sendall(b"\x1b[2J  Boot Manager Menu  \r\n")
                ended.wait(0.05)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=print_on, name="flooding")
        thread.start()
        yield path
        ended.set()
        thread.join()


def test_a_console_that_never_pauses_is_not_waited_for_without_end(flooding: Path) -> None:
    domain: Any = SimpleNamespace(serial=flooding)
    method = ViaConsole(lambda: domain, ConsoleLogin())
    answers: list[bool] = []
    asking = threading.Thread(target=lambda: answers.append(method.is_ready()), name="asking", daemon=True)
    asking.start()
    asking.join(60)
    assert answers == [False]
    assert "Boot Manager Menu" in method.problem()
    method.close()
