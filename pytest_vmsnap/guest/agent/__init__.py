"""The QEMU guest agent as a channel."""

from pytest_vmsnap.guest.agent.channel import AgentChannel

__all__ = ["AgentChannel"]
