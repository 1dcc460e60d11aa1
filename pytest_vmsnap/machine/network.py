"""A machine's network: forwarded ports, and the cable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.errors import SpecError
from pytest_vmsnap.host import add_forward
from pytest_vmsnap.machine.commands import Commands

if TYPE_CHECKING:
    from pytest_vmsnap.host import Protocol


class Network(Commands):
    """A machine's network. QEMU forwards ports (``hostfwd``), on the machine's `address` only."""

    @property
    def address(self) -> str:
        """The loopback address on the host to which this machine's ports are forwarded."""
        return self._address

    def forward_port(
        self, guest_port: int, *, host_port: int = 0, protocol: Protocol = "tcp"
    ) -> tuple[str, int]:
        """Make a port of the guest reachable on the host; return the address and the port there.

        `host_port` 0 picks a free port. The forward ends with the machine. Raises `SpecError` if the machine
        has no network, and for an invalid port or protocol; `HostError` if the host's port is in use.
        """
        __tracebackhide__ = True
        self._expect_usable()
        for name, number, low in (("guest_port", guest_port, 1), ("host_port", host_port, 0)):
            if not isinstance(number, int) or not low <= number <= 65535:
                raise SpecError(f"{name}={number!r}: a port is a whole number from {low} to 65535")
        if protocol not in ("tcp", "udp"):
            raise SpecError(f"protocol={protocol!r}: allowed are tcp, udp")
        made = add_forward(
            self._backend.domain,
            netdev=self._netdev(),
            address=self.address,
            guest_port=guest_port,
            host_port=host_port,
            protocol=protocol,
        )
        self._forwards.append(made)
        return self.address, made.host_port

    def block_network(self) -> None:
        """Pull the cable: the guest sees its link go down, and nothing passes, forwarded ports included.

        Raises `SpecError` if the machine has no network, or if its channel needs the network (``ssh``).
        """
        __tracebackhide__ = True
        self._set_link(False)

    def unblock_network(self) -> None:
        """Plug the cable in again; raises as `block_network` does."""
        __tracebackhide__ = True
        self._set_link(True)

    def _set_link(self, up: bool) -> None:
        self._expect_usable()
        self._netdev()
        if self._channel.needs_network:
            raise SpecError(
                f"the network cannot be blocked: vmsnap_channel={self._channel.name} needs it to reach the "
                "machine",
                hint="use vmsnap_channel=shell",
            )
        self._backend.domain.qmp("set_link", name="net0", up=up)

    def _netdev(self) -> str:
        if not (name := self._backend.netdev):
            raise SpecError("this machine has no network (network=none)", hint="use vmsnap_network=user")
        return name
