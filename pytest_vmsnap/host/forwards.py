"""Port forwards from the host to a guest (QEMU, "Network emulation", ``hostfwd``).

Only QEMU's human monitor can add them to a running machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pytest_vmsnap.errors import HostError

if TYPE_CHECKING:
    from pytest_vmsnap.host.libvirt import Domain

Protocol = Literal["tcp", "udp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A forward of `host_port` on a loopback address of the host to `guest_port` in the guest."""

    protocol: Protocol
    host_port: int
    guest_port: int


def forwards(domain: Domain, address: str) -> list[Forward]:
    """Return the forwards of `domain` on the host's `address`."""
    pattern = rf"(TCP|UDP)\[HOST_FORWARD\]\s+\d+\s+{re.escape(address)}\s+(\d+)\s+\S+\s+(\d+)"
    return [
        Forward(protocol="tcp" if kind == "TCP" else "udp", host_port=int(host), guest_port=int(guest))
        for kind, host, guest in re.findall(pattern, _monitor(domain, "info usernet"))
    ]


def add_forward(
    domain: Domain,
    *,
    netdev: str,
    address: str,
    guest_port: int,
    host_port: int = 0,
    protocol: Protocol = "tcp",
) -> Forward:
    """Forward a port on the host's `address` to `guest_port`, and return the forward.

    `host_port` 0 takes a free port. Raises `HostError` if the host's port is not available.
    """
    before = forwards(domain, address)
    _monitor(domain, f"hostfwd_add {netdev} {protocol}:{address}:{host_port}-:{guest_port}")
    for found in forwards(domain, address):
        if found not in before and (found.protocol, found.guest_port) == (protocol, guest_port):
            return found
    raise HostError(
        f"{address}:{host_port} on the host is not available for the guest's port {guest_port}",
        hint="another process uses the port, or the port is below 1024; host_port=0 takes a free one",
    )


def remove_forward(domain: Domain, *, netdev: str, address: str, forward: Forward) -> None:
    """Remove a forward, which frees its port on the host."""
    _monitor(domain, f"hostfwd_remove {netdev} {forward.protocol}:{address}:{forward.host_port}")


def _monitor(domain: Domain, line: str) -> str:
    answer = domain.qmp("human-monitor-command", {"command-line": line})
    if "could not set up" in answer.lower() or "invalid" in answer.lower():
        raise HostError(f"QEMU refused {line!r}: {answer.strip()}")
    return str(answer)
