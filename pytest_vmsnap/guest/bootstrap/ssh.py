"""Installing over SSH, with a key that the image accepts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ChannelError, GuestGone, GuestHung
from pytest_vmsnap.guest.ssh.connection import SshConnection

if TYPE_CHECKING:
    from pytest_vmsnap.guest.channel import Target
    from pytest_vmsnap.guest.ssh.login import SshLogin

TRY_SECONDS = 3.0


class ViaSsh:
    """SSH to the machine at `target`, with a given key."""

    name = "SSH"

    def __init__(self, target: Target, login: SshLogin) -> None:
        self._connection = SshConnection(target, login)
        self._problem = "no connection was tried"

    def is_ready(self) -> bool:
        try:
            self._connection.connect(time.monotonic() + TRY_SECONDS)
        except (GuestGone, GuestHung):
            raise
        except ChannelError as error:
            self._problem = error.message
            return False
        return True

    def run_as_root(self, script: str, *, timeout: float) -> None:
        done = self._connection.execute(script, None, timeout=timeout)
        if done.status:
            raise ChannelError(f"exit status {done.status}: {done.stderr.decode(errors='replace').strip()}")

    def problem(self) -> str:
        return self._problem

    def close(self) -> None:
        self._connection.close()
