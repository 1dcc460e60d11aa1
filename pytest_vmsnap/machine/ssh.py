"""SSH to a machine, for whoever brings a client of their own."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.machine.network import Network

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.guest import SshLogin

SSH_PORT = 22
# a machine's key is its snapshot's, and its address soon another machine's: there is nothing to be known of it
CLIENT_OPTIONS = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")


@dataclass(frozen=True, slots=True, kw_only=True)
class SshAccess:
    """Where a machine is reached by SSH: `host` and `port` on this host, `user`, private `key` (a file)."""

    host: str
    port: int
    user: str
    key: Path

    @property
    def command(self) -> str:
        """The command line of an SSH client, to which a command may be added."""
        options = [word for option in CLIENT_OPTIONS for word in ("-o", option)]
        words = ["ssh", "-i", str(self.key), "-p", str(self.port), *options, f"{self.user}@{self.host}"]
        return shlex.join(words)


class Ssh(Network):
    """A machine's SSH server, if its image has one."""

    _ssh_login: SshLogin

    @property
    def ssh(self) -> SshAccess:
        """How to reach the machine by SSH: forwarded, and with a key that it lets in.

        Raises `SpecError` for a machine without a network, `HostError` where the extra ``ssh`` is not
        installed, `CommandFailed` where the key cannot be planted.
        """
        __tracebackhide__ = True
        self._expect_usable()
        login = self._ssh_login
        host, port = self._ssh_place()
        if login.given is None and self._channel.name != "ssh":
            self.run(login.planting_script(), check=True)
        return SshAccess(host=host, port=port, user=login.user, key=login.key_file())

    def _ssh_place(self) -> tuple[str, int]:
        for forward in self._forwards:
            if (forward.protocol, forward.guest_port) == ("tcp", SSH_PORT):
                return self.address, forward.host_port
        return self.forward_port(SSH_PORT)
