"""Which channel a machine has, and which methods install it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_vmsnap.guest.agent.channel import AgentChannel
from pytest_vmsnap.guest.bootstrap import ConsoleLogin, ViaAgent, ViaCloudInit, ViaConsole, ViaSsh
from pytest_vmsnap.guest.shell import ShellChannel, install_script, port_names
from pytest_vmsnap.guest.ssh import SshChannel

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap.guest.bootstrap import BootstrapMethod
    from pytest_vmsnap.guest.channel import Channel, Target
    from pytest_vmsnap.guest.ssh import SshLogin
    from pytest_vmsnap.model import ChannelName, GuestNotes, Image


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFactory:
    """How the guests of a run are reached: the channel, and the logins that it may use.

    `scaled` stretches a deadline's seconds for a slow host.
    """

    channel: ChannelName
    ssh: SshLogin
    console: ConsoleLogin = field(default_factory=ConsoleLogin)
    scaled: Callable[[float], float] = float

    def channel_to(self, target: Target, image: Image, known: GuestNotes | None = None) -> Channel:
        """Return the channel to the machine at `target`, started from `image`; `known` are a clone's notes."""
        if self.channel == "agent":
            return AgentChannel(lambda: target.domain, scaled=self.scaled)
        methods: list[BootstrapMethod] = [ViaAgent(lambda: target.domain), ViaCloudInit()]
        if self.channel == "shell" and self.ssh.given and target.netdev:
            methods.append(ViaSsh(target, self.ssh))
        methods.append(ViaConsole(lambda: target.domain, self.console))
        if self.channel == "ssh":
            return SshChannel(target, self.ssh, methods=() if self.ssh.given else methods, scaled=self.scaled)
        return ShellChannel(
            lambda: target.domain, methods=methods, at_boot=image.has_shell, known=known, scaled=self.scaled
        )

    def seed(self, image: Image) -> str | None:
        """Return the script that cloud-init runs in `image` at its first boot, None if none is needed.

        The images that we build need none: they have the shell or the agent.
        """
        if image.has_shell or image.disk is None or self.channel == "agent":
            return None
        if self.channel == "ssh":
            return None if self.ssh.given else self.ssh.install_script()
        return install_script()

    @property
    def ports(self) -> tuple[str, ...]:
        """The virtio-serial ports that the channel needs in addition to the guest agent's."""
        return port_names() if self.channel == "shell" else ()
