"""What connects to a guest from the host."""

from __future__ import annotations

import socket

GREETING = b"SSH-2.0-"  # the image has a server that speaks first


def greeting(address: tuple[str, int], timeout: float = 20.0) -> bytes:
    with socket.create_connection(address, timeout=timeout) as connection:
        connection.settimeout(timeout)
        return connection.recv(len(GREETING))
