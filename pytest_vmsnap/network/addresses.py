"""Addresses on a cluster's private network: fixed, by a machine's place in its cluster."""

from __future__ import annotations

from dataclasses import dataclass

IPV4_NETWORK = "10.118.109"  # /24, of private use (RFC 1918); QEMU's user network is 10.0.2.0/24
IPV6_NETWORK = "fd76:6d73:6e61:70"  # /64, a unique local one (RFC 4193)
IPV4_PREFIX, IPV6_PREFIX = 24, 64
MAC_NETWORK = "52:54:00:76:6d"  # QEMU's prefix, locally administered


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the machine `name` is on its cluster's private network."""

    name: str
    mac: str
    ipv4: str
    ipv6: str


def address_of(name: str, place: int) -> Address:
    """The address of the machine `name` at `place`, counted from 0."""
    number = place + 1
    return Address(
        name=name,
        mac=f"{MAC_NETWORK}:{number:02x}",
        ipv4=f"{IPV4_NETWORK}.{number}",
        ipv6=f"{IPV6_NETWORK}::{number:x}",
    )
