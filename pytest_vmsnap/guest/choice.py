"""Which channel a machine has, and by which ways it is planted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_vmsnap.guest.agent import AgentChannel
from pytest_vmsnap.guest.planting import ByAgent, ByConsole, BySeed, ConsoleLogin
from pytest_vmsnap.guest.shell import ShellChannel, planting_script, port_names
from pytest_vmsnap.guest.ssh import BySsh, SshChannel

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap.guest.channel import Channel, Site
    from pytest_vmsnap.guest.planting import Way
    from pytest_vmsnap.guest.ssh import SshLogin
    from pytest_vmsnap.model import ChannelName, GuestNotes, Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How the guests of a run are reached: the channel, and the logins that it may use.

    `scaled` makes of a deadline's seconds those that hold here.
    """

    channel: ChannelName
    ssh: SshLogin
    console: ConsoleLogin = field(default_factory=ConsoleLogin)
    scaled: Callable[[float], float] = float

    def channel_to(self, site: Site, image: Image, known: GuestNotes | None = None) -> Channel:
        """The channel to the machine at `site`, which started from `image`; `known` of a clone's guest."""
        if self.channel == "agent":
            return AgentChannel(lambda: site.domain, scaled=self.scaled)
        ways: list[Way] = [ByAgent(lambda: site.domain), BySeed()]
        if self.channel == "shell" and self.ssh.given and site.netdev:
            ways.append(BySsh(site, self.ssh))
        ways.append(ByConsole(lambda: site.domain, self.console))
        if self.channel == "ssh":
            return SshChannel(site, self.ssh, ways=() if self.ssh.given else ways, scaled=self.scaled)
        return ShellChannel(
            lambda: site.domain, ways=ways, at_boot=image.has_shell, known=known, scaled=self.scaled
        )

    def seed(self, image: Image) -> str | None:
        """The script that cloud-init is to run in `image` at its first boot, None where there is no need.

        What we build needs none: it has the shell or the agent.
        """
        if image.has_shell or image.disk is None or self.channel == "agent":
            return None
        if self.channel == "ssh":
            return None if self.ssh.given else self.ssh.planting_script()
        return planting_script()

    @property
    def ports(self) -> tuple[str, ...]:
        """The virtio-serial ports that it needs beside the guest agent's."""
        return port_names() if self.channel == "shell" else ()
