"""Give a guest its address, its name and those of its peers on a cluster's private network."""

from __future__ import annotations

import logging
import shlex
from importlib.resources import files
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ChannelError
from pytest_vmsnap.guest.channel import Request
from pytest_vmsnap.network import IPV4_PREFIX, IPV6_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vmsnap.guest.channel import Channel
    from pytest_vmsnap.network import Address

log = logging.getLogger("pytest_vmsnap.guest")

JOIN_SCRIPT = files(__package__).joinpath("join.sh").read_text()
NO_CARD, NO_ADDRESS = 90, 91


def join_network(channel: Channel, own: Address, all_machines: Sequence[Address], *, timeout: float) -> str:
    """Configure the guest on `channel` as `own`, with the names of `all_machines`.

    Returns what keeps the address over a reboot: ``systemd-networkd``, ``NetworkManager``, ``ifupdown``, or
    ``nothing``. `timeout` is in seconds. Raises `ChannelError` if the guest has no driver for the card, or
    takes no address.
    """
    arguments = [own.name, own.mac, f"{own.ipv4}/{IPV4_PREFIX}", f"{own.ipv6}/{IPV6_PREFIX}"]
    for each in all_machines:
        arguments += [each.ipv4, each.name, each.ipv6, each.name]
    done = channel.run(
        Request(text=f"sh -s {shlex.join(arguments)}", input=JOIN_SCRIPT.encode()), timeout=timeout
    )
    said = done.stderr.decode(errors="replace").strip()
    if done.status == NO_CARD:
        raise ChannelError(
            f"the guest of {own.name} shows no card on the cluster's network",
            hint="it needs a driver for virtio-net and PCI hotplug (Linux: virtio_net, and ACPI or a rescan)",
        )
    if done.status:
        reason = f"exit status {done.status}" if not done.timed_out else f"no end within {timeout:g} s"
        raise ChannelError(f"the guest of {own.name} could not join the cluster's network: {said or reason}")
    device, kept = done.stdout.decode().split()[-2:]
    log.info("%s: %s on the cluster's network, kept by %s", own.name, device, kept)
    return kept
