"""The host's ends of a slot's two ports, and the framing on them (``guest.sh`` has the other half)."""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import GuestGone
from pytest_vmsnap.guest.streams import Discarded, MarkedStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_vmsnap.guest.streams import Sink, Source
    from pytest_vmsnap.guest.terminal import Terminal

PIECE = 1 << 18
MOST_DROPPED = 256  # unrequested pieces to drop at once: a process that keeps writing is not waited for
LOOK_SECONDS = 1.0  # between two looks at the guest, while an answer is due


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The result of a command. `died` if the slot's shell did not survive it."""

    status: int
    died: bool


class TerminalSink:
    """Shows a stream on a terminal."""

    is_closed = False

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def write(self, piece: bytes) -> None:
        self._terminal.show(piece)


class Wire:
    """A slot's two ports: `control` (commands, stdout) and `data` (input, stderr), UNIX sockets of QEMU."""

    def __init__(self, control: Path, data: Path) -> None:
        self._paths = (control, data)
        self._control, self._data = self._connected(control), self._connected(data)
        self._poll = select.poll()
        self._out, self._err = _nothing(), _nothing()
        self._mark = self._question = b""
        self._commands = self._input = memoryview(b"")
        self._pieces: Iterator[bytes] = iter(())
        self._has_input = False
        self._moved_at = 0.0  # when bytes last moved (monotonic clock)

    @staticmethod
    def _connected(path: Path) -> socket.socket:
        end = socket.socket(socket.AF_UNIX)
        try:
            end.connect(str(path))
        except OSError as error:
            end.close()
            raise GuestGone(f"cannot connect to the port {path.name}: {error}") from error
        end.setblocking(False)
        return end

    def drop(self) -> bool:
        """Drop what has come without a request; return false if QEMU has closed a port.

        A process that an earlier command left behind wrote it.
        """
        for end in (self._control, self._data):
            try:
                for _ in range(MOST_DROPPED):
                    if not end.recv(PIECE):
                        return False
            except BlockingIOError:
                continue
            except OSError:
                return False
        return True

    def send(
        self,
        line: bytes,
        mark: bytes,
        source: Source | None = None,
        *,
        out: Sink | None = None,
        err: Sink | None = None,
    ) -> None:
        """Send the command in `line`, with `source` as its input; `finish` returns the reply.

        Its streams go to `out` and `err`; if one of them closes, `finish` gives up.
        """
        pieces = source.open() if source else iter(())
        first = next(pieces, b"")  # may raise: nothing is sent then
        self.drop()
        said = b"#" + mark
        self._out, self._err = MarkedStream(said, out or Discarded()), MarkedStream(said, err or Discarded())
        self._commands = memoryview(line + b"\n" + said + b"\n")
        self._mark = said
        self._input, self._pieces = memoryview(first), pieces
        self._has_input = source is not None and source.size > 0
        self._moved_at = time.monotonic()
        try:
            self._commands = self._commands[self._control.send(self._commands) :]
        except BlockingIOError:
            pass
        except OSError as error:
            raise GuestGone(f"QEMU has closed the port: {error}") from error

    def stop_input(self) -> None:
        """Send no more of the input."""
        self._pieces, self._input = iter(()), memoryview(b"")

    @property
    def has_input(self) -> bool:
        """Whether the last command has input, some of which may be unread."""
        return self._has_input

    def remind(self) -> None:
        """Send the mark again: the process that read a part of it may have been killed."""
        self._commands = memoryview(bytes(self._commands) + self._mark + b"\n")

    def ask(self, nonce: bytes) -> None:
        """Ask whether the shell is there; `is_answered` has the answer. The shell forks no process for it."""
        self.drop()
        self._question = b"?" + nonce + b"\n"
        self._out, self._err = MarkedStream(self._question, Discarded()), _nothing()
        try:
            self._control.sendall(self._question)
        except OSError as error:
            raise GuestGone(f"QEMU has closed the port: {error}") from error

    def is_answered(self, deadline: float) -> bool:
        """Return whether the answer comes by the `deadline` (monotonic clock)."""
        while not self._out.is_ended:
            if (now := time.monotonic()) >= deadline:
                return False
            self._exchange(deadline - now)
        return True

    @property
    def is_idle(self) -> bool:
        """Whether no answer is due."""
        return not self._mark

    def finish(
        self, deadline: float, look: Callable[[], None] = lambda: None, *, idle_timeout: float | None = None
    ) -> Reply | None:
        """Return the reply, or None at the `deadline` (monotonic clock): you may call it again then.

        Also returns None as soon as a sink closes. With `idle_timeout` (seconds) the deadline moves on whenever
        bytes move. Raises `GuestGone` if QEMU has ended, and what the source of the input raises. Calls `look`
        now and then, which may raise.
        """
        next_look = time.monotonic() + LOOK_SECONDS
        stopped = self._is_stopped
        while (reply := self._found()) is None:
            if self._is_stopped and not stopped:
                return None
            now = time.monotonic()
            if idle_timeout is not None:
                deadline = self._moved_at + idle_timeout
            if now >= deadline:
                return None
            if now >= next_look:
                look()
                next_look = now + LOOK_SECONDS
            self._exchange(min(deadline, next_look) - now)
        self._mark = b""
        return reply

    @property
    def _is_stopped(self) -> bool:
        return self._out.sink.is_closed or self._err.sink.is_closed

    def relay(self, terminal: Terminal, look: Callable[[], None]) -> Reply:
        """Send what is typed at the `terminal` as input, until the reply comes; the sinks show the streams.

        Raises `Escaped` if the person types the escape character: the command then keeps running.
        """
        while (reply := self._found()) is None:
            self._poll.register(terminal.source, select.POLLIN)
            try:
                if self._exchange(LOOK_SECONDS, terminal.source):
                    self._input = memoryview(bytes(self._input) + terminal.typed())
                    self._has_input = True
            finally:
                self._poll.unregister(terminal.source)
            look()
        self._mark = b""
        return reply

    def _exchange(self, timeout: float, further: int = -1) -> bool:
        """Send and receive what is possible within `timeout` seconds; return whether `further` is ready."""
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
                self._refill()
        return is_ready

    def _refill(self) -> None:
        while not self._input and (piece := next(self._pieces, None)) is not None:
            self._input = memoryview(piece)

    def _serve(self, end: socket.socket, events: int, stream: MarkedStream, rest: memoryview) -> memoryview:
        piece = None
        try:
            if events & select.POLLOUT:
                rest = rest[end.send(rest[:PIECE]) :]
                self._moved_at = time.monotonic()
            if events & ~select.POLLOUT:
                piece = end.recv(PIECE)
        except BlockingIOError:
            pass
        except OSError as error:
            raise GuestGone(f"QEMU has closed the port: {error}") from error
        if piece == b"":
            raise GuestGone("QEMU has closed the port")
        if piece:
            self._moved_at = time.monotonic()
            stream.feed(piece)
        return rest

    def _found(self) -> Reply | None:
        """Return the reply, if all of it has come."""
        if not (self._out.is_ended and self._err.is_ended):
            return None
        line, newline, _ = self._out.behind.partition(b"\n")
        if not newline:
            return None
        words = line.split()
        return Reply(status=int(words[0]), died=words[1:] == [b"died"])

    def descriptors(self) -> tuple[int, int]:
        """Return both sockets' descriptors, to be watched while no answer is due."""
        return self._control.fileno(), self._data.fileno()

    def close(self) -> None:
        """Close both sockets."""
        self._control.close()
        self._data.close()


def _nothing() -> MarkedStream:
    """Return a stream on which nothing is expected: no guest writes this mark."""
    return MarkedStream(b"\0vmsnap\0", Discarded())
