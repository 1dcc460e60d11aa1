"""SSH: a channel, and logins for people."""

from pytest_vmsnap.guest.ssh.channel import SshChannel
from pytest_vmsnap.guest.ssh.connection import SshConnection
from pytest_vmsnap.guest.ssh.login import SshLogin

__all__ = ["SshChannel", "SshConnection", "SshLogin"]
