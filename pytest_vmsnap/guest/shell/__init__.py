"""The planted shell: a POSIX ``sh`` that waits in the guest, is saved with it, and is there in every clone."""

from pytest_vmsnap.guest.shell.channel import ShellChannel
from pytest_vmsnap.guest.shell.ports import port_names
from pytest_vmsnap.guest.shell.source import SLOTS, additions, planting_script, source

__all__ = ["ShellChannel", "port_names", "source", "additions", "planting_script", "SLOTS"]
