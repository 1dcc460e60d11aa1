"""SSH: a channel of its own, a way of planting the shell, and access for people."""

from pytest_vmsnap.guest.ssh.channel import SshChannel
from pytest_vmsnap.guest.ssh.connection import SshConnection
from pytest_vmsnap.guest.ssh.login import SshLogin
from pytest_vmsnap.guest.ssh.way import BySsh

__all__ = ["SshChannel", "SshConnection", "SshLogin", "BySsh"]
