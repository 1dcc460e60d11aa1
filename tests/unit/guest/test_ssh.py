"""The SSH connection, against paramiko's own server."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import paramiko
import pytest

from pytest_vmsnap.guest.ssh.connection import answered_within

if TYPE_CHECKING:
    from collections.abc import Iterator


class Mute(paramiko.ServerInterface):
    """Opens a session, and leaves the wish for a command without an answer."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002 - the interface
        return "none"

    def check_auth_none(self, username: str) -> int:  # noqa: ARG002 - the interface
        return int(paramiko.AUTH_SUCCESSFUL)

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002 - the interface
        return int(paramiko.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:  # noqa: ARG002
        self.over.wait()
        return True


@pytest.fixture
def transport() -> Iterator[paramiko.Transport]:
    near, far = socket.socketpair()
    mute, server, client = Mute(), paramiko.Transport(far), paramiko.Transport(near)
    server.add_server_key(paramiko.ECDSAKey.generate())
    server.start_server(event=threading.Event(), server=mute)
    client.start_client(timeout=60)
    client.auth_none("root")
    yield client
    mute.over.set()
    client.close()
    server.close()


def test_a_command_that_the_server_never_begins_is_given_up(transport: paramiko.Transport) -> None:
    session = transport.open_session(timeout=60)
    with pytest.raises((paramiko.SSHException, EOFError)), answered_within(0.2, transport):
        session.exec_command("true")
    assert not transport.is_active()
