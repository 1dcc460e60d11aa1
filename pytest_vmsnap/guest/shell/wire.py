"""The host's ends of a slot's two ports, and the framing on them (``planted.sh`` says the other half)."""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import GuestGone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_vmsnap.guest.terminal import Terminal

PIECE = 1 << 18
LOOK_SECONDS = 1.0  # between two looks at the guest, while it owes an answer
STATUS_BYTES = 16  # behind a mark, at most: " 255 died\n"


@dataclass(slots=True)
class Stream:
    """What has come by a port: `data`; where the mark begins in it (`end`, -1 if it has not come)."""

    data: bytearray = field(default_factory=bytearray)
    end: int = -1
    _seen: int = 0

    def has(self, mark: bytes) -> bool:
        """Whether `mark` has come; what was looked through is not looked through again."""
        if self.end < 0:
            self.end = self.data.find(mark, max(0, self._seen - len(mark)))
            self._seen = len(self.data)
        return self.end >= 0

    def settled(self, mark: bytes) -> int:
        """How many bytes are the command's own for sure: what follows them may be the beginning of `mark`."""
        if self.end >= 0:
            return self.end
        for length in range(min(len(mark), len(self.data)), 0, -1):
            if mark.startswith(self.data[-length:]):
                return len(self.data) - length
        return len(self.data)

    def content(self) -> bytes:
        """What came before the mark."""
        return bytes(memoryview(self.data)[: self.end])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a command came to. `died` if the slot's shell did not survive it."""

    status: int
    stdout: bytes
    stderr: bytes
    died: bool


class Wire:
    """A slot's two ports: `control` (commands, stdout) and `data` (input, stderr), UNIX sockets of QEMU's."""

    def __init__(self, control: Path, data: Path) -> None:
        self._paths = (control, data)
        self._control, self._data = self._connected(control), self._connected(data)
        self._poll = select.poll()
        self._out, self._err = Stream(), Stream()
        self._mark = self._question = b""
        self._commands = self._input = memoryview(b"")

    @staticmethod
    def _connected(path: Path) -> socket.socket:
        end = socket.socket(socket.AF_UNIX)
        try:
            end.connect(str(path))
        except OSError as error:
            end.close()
            raise GuestGone(f"the port {path.name} is not there: {error}") from error
        end.setblocking(False)
        return end

    def drop(self) -> bool:
        """Drop what has come unasked; false where QEMU has closed a port.

        A process that an earlier command left behind wrote it.
        """
        for end in (self._control, self._data):
            try:
                while end.recv(PIECE):
                    pass
            except BlockingIOError:
                continue
            except OSError:
                return False
            return False
        return True

    def send(self, line: bytes, mark: bytes, data: bytes = b"") -> None:
        """Ask for the command in `line`, with `data` as its input; `finish` brings the answer."""
        self.drop()
        self._out, self._err = Stream(), Stream()
        said = b"#" + mark
        self._commands = memoryview(line + b"\n" + said + b"\n")
        self._input = memoryview(data)
        self._mark = said
        try:
            self._commands = self._commands[self._control.send(self._commands) :]
        except BlockingIOError:
            pass
        except OSError as error:
            raise GuestGone(f"QEMU has closed the port: {error}") from error

    def remind(self) -> None:
        """Say the mark again: whoever had read a part of it may have been killed."""
        self._commands = memoryview(bytes(self._commands) + self._mark + b"\n")

    def ask(self, nonce: bytes) -> None:
        """Ask whether the shell is there, which `is_answered` tells; no process is forked for it."""
        self.drop()
        self._out = Stream()
        self._question = b"?" + nonce + b"\n"
        try:
            self._control.sendall(self._question)
        except OSError as error:
            raise GuestGone(f"QEMU has closed the port: {error}") from error

    def is_answered(self, deadline: float) -> bool:
        """Whether the answer has come by the `deadline` (monotonic clock)."""
        while not self._out.has(self._question):
            if (now := time.monotonic()) >= deadline:
                return False
            self._exchange(deadline - now)
        return True

    @property
    def is_idle(self) -> bool:
        """Whether no answer is owed."""
        return not self._mark

    def finish(self, deadline: float, look: Callable[[], None] = lambda: None) -> Reply | None:
        """The answer, or None at the `deadline` (monotonic clock): it may be asked for again then.

        Raises `GuestGone` where QEMU has ended. `look` is called now and then, and may raise.
        """
        next_look = time.monotonic() + LOOK_SECONDS
        while (reply := self._found()) is None:
            now = time.monotonic()
            if now >= deadline:
                return None
            if now >= next_look:
                look()
                next_look = now + LOOK_SECONDS
            self._exchange(min(deadline, next_look) - now)
        self._mark = b""
        return reply

    def relay(self, terminal: Terminal, look: Callable[[], None]) -> Reply:
        """Pass on what is typed at the `terminal` as input, and show what the command writes.

        Raises `Escaped` where its person wants something else: the command runs on then.
        """
        shown = 0
        while (reply := self._found()) is None:
            self._poll.register(terminal.source, select.POLLIN)
            try:
                if self._exchange(LOOK_SECONDS, terminal.source):
                    self._input = memoryview(bytes(self._input) + terminal.typed())
            finally:
                self._poll.unregister(terminal.source)
            self._out.has(self._mark)
            until = self._out.settled(self._mark)
            terminal.show(bytes(self._out.data[shown:until]))
            shown = until
            look()
        self._mark = b""
        return reply

    def partial(self) -> tuple[bytes, bytes]:
        """What has come of both streams so far."""
        return bytes(self._out.data), bytes(self._err.data)

    def _exchange(self, timeout: float, further: int = -1) -> bool:
        """Send and receive what can be, waiting for at most `timeout` seconds; whether `further` is ready."""
        is_ready = False
        out, err = self._control.fileno(), self._data.fileno()
        self._poll.register(out, select.POLLIN | (select.POLLOUT if self._commands else 0))
        self._poll.register(err, select.POLLIN | (select.POLLOUT if self._input else 0))
        for descriptor, events in self._poll.poll(timeout * 1000 + 1):
            if descriptor == further:
                is_ready = True
            elif descriptor == out:
                self._commands = self._serve(self._control, events, self._out, self._commands)
            else:
                self._input = self._serve(self._data, events, self._err, self._input)
        return is_ready

    def _serve(self, end: socket.socket, events: int, stream: Stream, rest: memoryview) -> memoryview:
        try:
            if events & ~select.POLLOUT:
                if not (piece := end.recv(PIECE)):
                    raise GuestGone("QEMU has closed the port")
                stream.data += piece
            if events & select.POLLOUT:
                return rest[end.send(rest[:PIECE]) :]
        except BlockingIOError:
            pass
        except OSError as error:
            raise GuestGone(f"QEMU has closed the port: {error}") from error
        return rest

    def _found(self) -> Reply | None:
        """The answer, if all of it has come."""
        if not (self._out.has(self._mark) and self._err.has(self._mark)):
            return None
        behind = bytes(self._out.data[self._out.end + len(self._mark) :][:STATUS_BYTES])
        line, newline, _ = behind.partition(b"\n")
        if not newline:
            return None
        words = line.split()
        return Reply(
            status=int(words[0]),
            stdout=self._out.content(),
            stderr=self._err.content(),
            died=words[1:] == [b"died"],
        )

    def descriptors(self) -> tuple[int, int]:
        """Both sockets, for whoever watches them while no answer is owed."""
        return self._control.fileno(), self._data.fileno()

    def close(self) -> None:
        """Close both ports' ends."""
        self._control.close()
        self._data.close()
