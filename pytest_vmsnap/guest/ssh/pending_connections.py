"""Waiting until sshd answers."""

from __future__ import annotations

import select
import socket
import time

from pytest_vmsnap.errors import ChannelError

AGAIN_SECONDS = 3.0  # until another connection is made
REFUSED_SECONDS = 0.5  # the same, if one was closed without an answer
MOST = 5  # connections at once: sshd refuses some from the tenth on (sshd_config, MaxStartups)


class PendingConnections:
    """Connections to a port of the guest; the first on which sshd answers is taken.

    QEMU's user-mode network accepts a connection at once, and retries it in the guest with growing pauses
    (libslirp, tcp_timer.c): one from before the guest had its network gets through late, a new one at once.
    sshd may also be slow to answer, so older connections keep waiting along with new ones.
    """

    def __init__(self) -> None:
        self._waiting: list[socket.socket] = []
        self._next = 0.0

    def answered(self, endpoint: tuple[str, int], deadline: float) -> socket.socket:
        """Return a connection on which something can be read.

        Raises `ChannelError` if there is none by the `deadline` (monotonic clock), `OSError` if nothing accepts
        connections.
        """
        while True:
            now = time.monotonic()
            if now >= self._next:
                self._waiting.append(socket.create_connection(endpoint, timeout=max(1.0, deadline - now)))
                self._next = now + AGAIN_SECONDS
                if len(self._waiting) > MOST:
                    self._waiting.pop(0).close()
            if now >= deadline:
                raise ChannelError("SSH: sshd does not answer")
            ready, _, _ = select.select(self._waiting, [], [], max(0.0, min(deadline, self._next) - now))
            for plug in ready:
                self._waiting.remove(plug)
                if _speaks(plug):
                    self.close()
                    return plug
                plug.close()
                self._next = min(self._next, now + REFUSED_SECONDS)

    def close(self) -> None:
        """Close the connections that still wait."""
        for plug in self._waiting:
            plug.close()
        self._waiting.clear()
        self._next = 0.0


def _speaks(plug: socket.socket) -> bool:
    try:
        return bool(plug.recv(1, socket.MSG_PEEK))
    except OSError:
        return False
