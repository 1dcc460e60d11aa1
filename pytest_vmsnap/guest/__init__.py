"""The guest's side: channels by which commands and data reach it, and repairs."""

from pytest_vmsnap.guest.agent import AgentChannel
from pytest_vmsnap.guest.channel import Channel, Completed, Request
from pytest_vmsnap.guest.repairs import set_clock

__all__ = ["Channel", "Request", "Completed", "AgentChannel", "set_clock"]
