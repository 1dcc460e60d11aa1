"""A machine's network: ports of the guest on the host, and the cable."""

from __future__ import annotations

import re
from typing import Literal

from pytest_vmsnap.errors import HostError, SpecError
from pytest_vmsnap.machine.commands import Commands

Protocol = Literal["tcp", "udp"]


class Network(Commands):
    """A machine's network. Forwards are QEMU's own (``hostfwd``), on the machine's `address` alone."""

    @property
    def address(self) -> str:
        """The host's loopback address that this machine's ports are forwarded to."""
        return self._body.address

    def forward_port(
        self, guest_port: int, *, host_port: int = 0, protocol: Protocol = "tcp"
    ) -> tuple[str, int]:
        """Have a port of the guest reachable on the host; returns the address and the port there.

        `host_port` 0 takes a free one. The forward ends with the machine. Raises `SpecError` without a network
        and for a number that is no port, `HostError` where the host's port is taken.
        """
        __tracebackhide__ = True
        self._expect_usable()
        for name, number, low in (("guest_port", guest_port, 1), ("host_port", host_port, 0)):
            if not isinstance(number, int) or not low <= number <= 65535:
                raise SpecError(f"{name}={number!r}: a port is a whole number from {low} to 65535")
        if protocol not in ("tcp", "udp"):
            raise SpecError(f"protocol={protocol!r}: allowed are tcp, udp")
        before = self._forwards()
        self._monitor(f"hostfwd_add {self._netdev()} {protocol}:{self.address}:{host_port}-:{guest_port}")
        for found in self._forwards():
            if found not in before and found[0] == protocol and found[2] == guest_port:
                return self.address, found[1]
        raise HostError(
            f"{self.address}:{host_port} on the host could not be had for the guest's port {guest_port}",
            hint="another process listens there, or it is below 1024: host_port=0 takes a free one",
        )

    def block_network(self) -> None:
        """Pull the cable: the guest sees its link go down, and nothing passes, forwarded ports included.

        Raises `SpecError` where the machine has no network, or where its own channel needs it (``ssh``).
        """
        __tracebackhide__ = True
        self._set_link(False)

    def unblock_network(self) -> None:
        """Put the cable back."""
        __tracebackhide__ = True
        self._set_link(True)

    def _set_link(self, up: bool) -> None:
        self._expect_usable()
        self._netdev()
        if self._channel.needs_network:
            raise SpecError(
                f"with vmsnap_channel={self._channel.name} a machine without network could not be reached",
                hint="use vmsnap_channel=shell",
            )
        self._body.domain.qmp("set_link", name="net0", up=up)

    def _netdev(self) -> str:
        if not (name := self._body.netdev):
            raise SpecError("this machine has no network (network=none)", hint="use vmsnap_network=user")
        return name

    def _forwards(self) -> list[tuple[str, int, int]]:
        """Protocol, the host's port and the guest's, of each forward on our address."""
        text = self._monitor("info usernet")
        pattern = rf"(TCP|UDP)\[HOST_FORWARD\]\s+\d+\s+{re.escape(self.address)}\s+(\d+)\s+\S+\s+(\d+)"
        return [(kind.lower(), int(host), int(guest)) for kind, host, guest in re.findall(pattern, text)]

    def _monitor(self, line: str) -> str:
        """A line for QEMU's human monitor: what it has no QMP command for."""
        answer = self._body.domain.qmp("human-monitor-command", {"command-line": line})
        if "could not set up" in answer.lower() or "invalid" in answer.lower():
            raise HostError(f"QEMU refused {line!r}: {answer.strip()}")
        return str(answer)
