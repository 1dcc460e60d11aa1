"""Which channel a machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.guest.agent import AgentChannel
from pytest_vmsnap.guest.shell import ShellChannel, port_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap.guest.channel import Channel
    from pytest_vmsnap.host import Domain
    from pytest_vmsnap.model import ChannelName


def channel_of(name: ChannelName, domain: Callable[[], Domain]) -> Channel:
    """The channel `name` to the machine whose domain at any time is the one that `domain` gives."""
    return AgentChannel(domain) if name == "agent" else ShellChannel(domain)


def ports_of(name: ChannelName) -> tuple[str, ...]:
    """The virtio-serial ports that it needs beside the guest agent's."""
    return port_names() if name == "shell" else ()
