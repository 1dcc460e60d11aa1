"""SSH to a machine, for a client of your own."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.machine.network import Network

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.guest import SshLogin

SSH_PORT = 22
# host keys prove nothing: all clones of a snapshot have the same one, and other machines reuse the address
CLIENT_OPTIONS = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")


@dataclass(frozen=True, slots=True, kw_only=True)
class SshAccess:
    """How to connect to a machine with SSH: `host` and `port` on this host, `user`, the private `key` file."""

    host: str
    port: int
    user: str
    key: Path

    @property
    def command(self) -> str:
        """A command line for an SSH client; append a command to run it."""
        options = [word for option in CLIENT_OPTIONS for word in ("-o", option)]
        words = ["ssh", "-i", str(self.key), "-p", str(self.port), *options, f"{self.user}@{self.host}"]
        return shlex.join(words)


class Ssh(Network):
    """A machine's SSH server, if its image has one."""

    _ssh_login: SshLogin

    @property
    def ssh(self) -> SshAccess:
        """How to connect to the machine with SSH, as an `SshAccess`. Forwards the port and installs a key.

        Raises `SpecError` if the machine has no network, `HostError` if the extra ``ssh`` is not installed,
        `CommandFailed` if the key cannot be installed.
        """
        __tracebackhide__ = True
        self._expect_usable()
        login = self._ssh_login
        host, port = self._ssh_place()
        if login.given is None and self._channel.name != "ssh":
            self.run(login.install_script(), check=True)
        return SshAccess(host=host, port=port, user=login.user, key=login.key_file())

    def _ssh_place(self) -> tuple[str, int]:
        for forward in self._forwards:
            if (forward.protocol, forward.guest_port) == ("tcp", SSH_PORT):
                return self.address, forward.host_port
        return self.forward_port(SSH_PORT)
