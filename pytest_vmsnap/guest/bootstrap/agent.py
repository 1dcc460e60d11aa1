"""Installing through the QEMU guest agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ChannelError, GuestHung
from pytest_vmsnap.guest.agent.channel import AgentChannel
from pytest_vmsnap.guest.channel import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap.host import Domain


class ViaAgent:
    """The guest agent of the current domain."""

    name = "guest agent"

    def __init__(self, domain: Callable[[], Domain]) -> None:
        self._domain = domain

    def is_ready(self) -> bool:
        if not self._domain().agent_connected():
            return False
        try:
            self._domain().wait_for_agent(timeout=1.0)
        except GuestHung:
            return False
        return True

    def run_as_root(self, script: str, *, timeout: float) -> None:
        done = AgentChannel(self._domain).run(Request(text=script), timeout=timeout)
        if done.status:
            raise ChannelError(f"exit status {done.status}: {done.stderr.decode(errors='replace').strip()}")

    def problem(self) -> str:
        return "it did not answer (is qemu-guest-agent installed and enabled?)"

    def close(self) -> None:
        """Do nothing: the agent keeps nothing open."""
