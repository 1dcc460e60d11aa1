"""The serial console as a way in, with guests that print as they like."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.guest.bootstrap import console
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
                connection.sendall(b"\x1b[2J  load average: 0.10  \r\n")
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
    domain: Any = SimpleNamespace(serial=flooding, console_end=lambda size: ""[:size])
    method = ViaConsole(lambda: domain, ConsoleLogin())
    answers: list[bool] = []
    asking = threading.Thread(target=lambda: answers.append(method.is_ready()), name="asking", daemon=True)
    asking.start()
    asking.join(60)
    assert answers == [False]
    assert "load average" in method.problem()
    method.close()


class Console:
    """A guest's console: it prints `answer` to a reader that connects, and notes what that types.

    After the first of the texts `after` was typed, it prints the second.
    """

    def __init__(self, path: Path, answer: bytes, after: tuple[bytes, bytes] = (b"", b"")) -> None:
        self._asked, self._reply = after
        self.typed = b""
        self.ended = threading.Event()
        self._answer = answer
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        threading.Thread(target=self._serve, name="console", daemon=True).start()

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        self._listening.close()
        with connection:
            connection.sendall(self._answer)
            with suppress(ConnectionResetError):  # the reader left what it had not read
                while data := connection.recv(1000):
                    self.typed += data
                    if self._asked and self._asked in self.typed:
                        connection.sendall(self._reply)
                        self._asked = b""
        self.ended.set()


@pytest.mark.parametrize(
    "printed",
    [
        b"\x1b[H  GNU GRUB  version 2.06\r\n Press enter to boot the selected OS\x1b[5;3H*Linux >",
        b"The highlighted entry will be executed automatically in 1s. \x1b[5;3H%",
        b"[    1.000000] pci 0000:00:03.0: [1af4:1003] type 00",
        b"guest login: ",
        b"Relabeling / 12.5%",
    ],
)
def test_a_console_without_a_prompt_is_left_again(tmp_path: Path, printed: bytes) -> None:
    """A guest stops at its output if a connected reader does not read."""
    guest = Console(tmp_path / "serial", printed)
    domain: Any = SimpleNamespace(serial=tmp_path / "serial", console_end=lambda size: ""[:size])
    method = ViaConsole(lambda: domain, ConsoleLogin())
    assert not method.is_ready()
    assert guest.ended.wait(60)
    assert guest.typed == b"\n"


@pytest.mark.parametrize("printed_before", [True, False])
def test_nothing_is_run_in_the_shell_of_a_firmware(tmp_path: Path, *, printed_before: bool) -> None:
    shell = "UEFI Interactive Shell v2.2\r\nPress ESC in 1 seconds to skip startup.nsh\r\nShell> "
    shown = [shell] if printed_before else []
    typed: list[bytes] = []

    def answer() -> None:
        connection, _ = listening.accept()
        with connection:
            typed.append(connection.recv(100))
            shown.append(shell)
            connection.sendall(shell.encode())
            with suppress(ConnectionResetError):  # the reader left what it had not read
                typed.append(connection.recv(100))

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "serial"))
        listening.listen()
        thread = threading.Thread(target=answer, name="answer", daemon=True)
        if not printed_before:
            thread.start()
        domain: Any = SimpleNamespace(
            serial=tmp_path / "serial", console_end=lambda size: "".join(shown)[-size:]
        )
        method = ViaConsole(lambda: domain, ConsoleLogin())
        assert not method.is_ready()
        if not printed_before:
            thread.join(60)
    assert b"".join(typed) == (b"" if printed_before else b"\n")
    assert "own shell" in method.problem()


def test_what_only_looks_like_a_prompt_is_asked_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "HELLO_SECONDS", 0.5)
    method = ViaConsole(lambda: domain, ConsoleLogin())
    domain: Any = SimpleNamespace(serial=tmp_path / "first", console_end=lambda size: ""[:size])
    first = Console(tmp_path / "first", b"[ OK ] Mounted /proc/<pid>")
    assert not method.is_ready()
    assert "what looks like a prompt is none" in method.problem()
    assert first.ended.wait(60)
    domain = SimpleNamespace(serial=tmp_path / "second", console_end=lambda size: ""[:size])
    second = Console(tmp_path / "second", b"guest:~# ", after=(b"40+2", b"\r\nvmsnap-42\r\nguest:~# "))
    assert method.is_ready()
    method.close()
    assert second.ended.wait(60)
