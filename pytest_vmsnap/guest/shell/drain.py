"""Reading and dropping what idle shells send on their ports.

A process that a command left behind may keep writing; if nothing read that, it would block as on a full pipe.
"""

from __future__ import annotations

import select
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vmsnap.guest.shell.wire import Wire


class Drain:
    """The idle wires, which one daemon thread of the process watches."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epoll = select.epoll()
        self._wires: dict[int, Wire] = {}
        self._thread: threading.Thread | None = None

    def watch(self, wire: Wire) -> None:
        """Drop what comes on `wire` from now on; do nothing if it is already watched."""
        with self._lock:
            for descriptor in wire.descriptors():
                if descriptor not in self._wires:
                    self._wires[descriptor] = wire
                    self._epoll.register(descriptor, select.EPOLLIN)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="vmsnap-idle-shells", daemon=True)
                self._thread.start()

    def unpin(self, wire: Wire) -> None:
        """Leave `wire` to its user; do nothing if it is not watched."""
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


IDLE = Drain()
