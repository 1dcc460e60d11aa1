"""The names of the virtio-serial ports that the guest shell reads and writes."""

from __future__ import annotations

from pytest_vmsnap.guest.shell.scripts import SLOTS


def port_names() -> tuple[str, ...]:
    """Return all names, two for each slot, in the order of their numbers on the bus."""
    return tuple(name for slot in range(SLOTS) for name in slot_ports(slot))


def slot_ports(slot: int) -> tuple[str, str]:
    """Return a slot's ports: one for commands and stdout, one for input and stderr."""
    return f"vmsnap.{slot}.0", f"vmsnap.{slot}.1"
