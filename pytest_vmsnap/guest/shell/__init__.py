"""The guest shell: a POSIX ``sh`` that waits in the guest, is saved with it, and waits in every clone."""

from pytest_vmsnap.guest.shell.channel import ShellChannel
from pytest_vmsnap.guest.shell.scripts import SLOTS, additions, install_script, source
from pytest_vmsnap.guest.shell.virtio_ports import port_names

__all__ = ["ShellChannel", "port_names", "source", "additions", "install_script", "SLOTS"]
