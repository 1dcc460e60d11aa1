"""The switch's process: sockets for the machines, and one to the run, which tells it what to do.

It imports nothing but the standard library, so that it starts in milliseconds, and ends when the run's end of
the control socket is closed, however the run ends.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import sys
import time
from collections import deque
from typing import IO, TYPE_CHECKING, Any

from pytest_vmsnap.network import pcapng
from pytest_vmsnap.network.faults import Fault, FaultSpec
from pytest_vmsnap.network.forwarding import BadFrame, Forwarder, Trace, split

if TYPE_CHECKING:
    from collections.abc import Callable

READ_BYTES = 256 << 10
SOCKET_BYTES = 1 << 20
MOST_QUEUED = 8 << 20  # bytes for a machine that does not read, such as a paused one; then frames are dropped
TRACE_BYTES = 4 << 20


class Port:
    """The connection of one machine, and the frames that wait to be sent to it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._queue: deque[memoryview] = deque()
        self._queued = 0

    @property
    def is_full(self) -> bool:
        """Whether frames wait that the machine has not read yet."""
        return bool(self._queue)

    def send(self, frames: bytes) -> None:
        """Send whole frames, or keep them until the machine reads; raises `OSError` if it has gone."""
        if self._queue:
            if self._queued + len(frames) <= MOST_QUEUED:
                self._keep(memoryview(frames))
            return
        try:
            sent = self.connection.send(frames)
        except BlockingIOError:
            sent = 0
        if sent < len(frames):
            self._keep(memoryview(frames)[sent:])

    def send_queued(self) -> None:
        """Send what waits, as far as the machine reads; raises `OSError` if it has gone."""
        while self._queue:
            try:
                sent = self.connection.send(self._queue[0])
            except BlockingIOError:
                return
            self._queued -= sent
            if sent < len(self._queue[0]):
                self._queue[0] = self._queue[0][sent:]
                return
            self._queue.popleft()

    def _keep(self, frames: memoryview) -> None:
        self._queue.append(frames)
        self._queued += len(frames)


class SwitchProcess:
    """The switch between `machines`, whose listening sockets are `listeners`, in their order."""

    def __init__(self, control: socket.socket, listeners: list[socket.socket], machines: list[str]) -> None:
        self._control = control
        self._machines = machines
        self._listeners = listeners
        self._ports: list[Port | None] = [None] * len(machines)
        self._writing: set[int] = set()  # places of the machines that have to read before more can be sent
        self._requests = b""
        self._trace = Trace(TRACE_BYTES)
        self._captures: dict[str, IO[bytes]] = {}
        self._forwarder = Forwarder(len(machines), send=self._send, record=self._record)
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._serve)
        for place, listener in enumerate(listeners):
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, self._acceptor(place))
        self._ended = False

    def run(self) -> None:
        """Forward frames until the run closes the control socket."""
        while not self._ended:
            wait = self._forwarder.send_due()
            for key, events in self._selector.select(wait):
                key.data(events)

    def _acceptor(self, place: int) -> Callable[[int], None]:
        def accept(_events: int) -> None:
            connection, _ = self._listeners[place].accept()
            self._disconnect(place)  # a machine that was started again connects anew
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
            self._ports[place] = Port(connection)
            self._selector.register(connection, selectors.EVENT_READ, self._mover(place))

        return accept

    def _mover(self, place: int) -> Callable[[int], None]:
        def move(events: int) -> None:
            port = self._ports[place]
            if port is None:
                return
            try:
                if events & selectors.EVENT_WRITE:
                    port.send_queued()
                    self._watch(place, port)
                if events & selectors.EVENT_READ:
                    data = port.connection.recv(READ_BYTES)
                    if not data:
                        self._disconnect(place)
                        return
                    self._forwarder.receive(place, data)
            except BlockingIOError:
                pass
            except (OSError, BadFrame):
                self._disconnect(place)

        return move

    def _disconnect(self, place: int) -> None:
        port, self._ports[place] = self._ports[place], None
        self._writing.discard(place)
        self._forwarder.forget(place)
        if port:
            self._selector.unregister(port.connection)
            port.connection.close()

    def _send(self, place: int, frames: bytes) -> None:
        port = self._ports[place]
        if port is None:
            return
        try:
            port.send(frames)
        except OSError:
            return  # its end is found when it is read from
        self._watch(place, port)

    def _watch(self, place: int, port: Port) -> None:
        """Have the selector tell when a machine reads again, if that is waited for."""
        if port.is_full == (place in self._writing):
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if port.is_full else 0)
        self._selector.modify(port.connection, events, self._mover(place))
        (self._writing.add if port.is_full else self._writing.discard)(place)

    def _record(self, source: int, frames: bytes, note: str) -> None:
        self._trace.add(source, frames, note)
        for path, file in list(self._captures.items()):
            try:
                moment = time.time_ns()
                for frame in split(frames):
                    file.write(pcapng.packet(source, moment, frame, note))
            except OSError:  # no space: the capture ends there, and `stop` tells
                self._captures.pop(path)
                with contextlib.suppress(OSError):
                    file.close()

    def _serve(self, _events: int) -> None:
        """Do what the run asks for: a line of JSON each, answered by one."""
        data = self._control.recv(READ_BYTES)
        if not data:
            self._ended = True
            return
        *lines, self._requests = (self._requests + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            try:
                answer = getattr(self, f"_do_{request.pop('do')}")(**request)
                reply = {"answer": answer}
            except OSError as error:
                reply = {"error": f"{error.strerror}: {error.filename}" if error.filename else str(error)}
            self._control.sendall(json.dumps(reply).encode() + b"\n")

    def _do_faults(self, faults: list[dict[str, Any]]) -> None:
        """Have exactly these faults; those that go on keep their random numbers."""
        specs = [FaultSpec.of(plain) for plain in faults]
        old = list(self._forwarder.faults)
        new = []
        for spec in specs:
            same = next((fault for fault in old if fault.spec == spec), None)
            if same:
                old.remove(same)
            new.append(same or Fault(spec))
        self._forwarder.faults = new

    def _do_capture(self, path: str) -> None:
        file = open(path, "wb", buffering=1 << 16)  # noqa: SIM115, PTH123 - it stays open until `stop`
        file.write(pcapng.header(self._machines))
        self._captures[path] = file

    def _do_stop(self, path: str) -> bool:
        """End a capture; false if it had broken off."""
        file = self._captures.pop(path, None)
        if file:
            file.close()
        return bool(file)

    def _do_save_trace(self, path: str) -> None:
        with open(path, "wb") as file:  # noqa: PTH123 - pathlib takes long to import
            file.write(pcapng.header(self._machines))
            file.writelines(self._trace.packets())

    def _do_connected(self) -> list[bool]:
        return [port is not None for port in self._ports]


def main() -> None:
    """The process: ``argv`` has the control socket's descriptor, then a machine and its listener's for each."""
    control = socket.socket(fileno=int(sys.argv[1]))
    machines = sys.argv[2::2]
    listeners = [socket.socket(fileno=int(number)) for number in sys.argv[3::2]]
    SwitchProcess(control, listeners, machines).run()
