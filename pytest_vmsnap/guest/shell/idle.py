"""What comes by the ports of shells that nobody waits for is read and dropped.

A process that a command left behind may go on writing; were nobody to read, it would stop as at a full pipe.
"""

from __future__ import annotations

import select
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vmsnap.guest.shell.wire import Wire


class Idle:
    """The wires that no answer is owed on, watched by one daemon thread of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epoll = select.epoll()
        self._wires: dict[int, Wire] = {}
        self._thread: threading.Thread | None = None

    def watch(self, wire: Wire) -> None:
        """Drop what comes on `wire` from now on; nothing happens if that is so already."""
        with self._lock:
            for descriptor in wire.descriptors():
                if descriptor not in self._wires:
                    self._wires[descriptor] = wire
                    self._epoll.register(descriptor, select.EPOLLIN)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="vmsnap-idle-shells", daemon=True)
                self._thread.start()

    def leave(self, wire: Wire) -> None:
        """Leave `wire` to its user; nothing happens if it is not watched."""
        with self._lock:
            for descriptor in wire.descriptors():
                if self._wires.pop(descriptor, None):
                    self._epoll.unregister(descriptor)

    def _serve(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll():  # others may register meanwhile (epoll_wait(2))
                with self._lock:
                    wire = self._wires.get(descriptor)
                    if wire and not wire.drop():
                        del self._wires[descriptor]  # its QEMU has ended
                        self._epoll.unregister(descriptor)


IDLE = Idle()
