"""The guest's side: channels by which commands and data reach it."""

from pytest_vmsnap.guest.agent import AgentChannel
from pytest_vmsnap.guest.channel import Channel, Completed, Request

__all__ = ["Channel", "Request", "Completed", "AgentChannel"]
