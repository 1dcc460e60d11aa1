"""The guest's side: channels by which commands and data reach it, and repairs."""

from pytest_vmsnap.guest.agent import AgentChannel
from pytest_vmsnap.guest.boot import bring_up, settle
from pytest_vmsnap.guest.channel import Channel, Completed, Request
from pytest_vmsnap.guest.choice import channel_of, ports_of
from pytest_vmsnap.guest.planting import additions
from pytest_vmsnap.guest.repairs import set_clock

__all__ = [
    "Channel",
    "Request",
    "Completed",
    "AgentChannel",
    "channel_of",
    "ports_of",
    "additions",
    "bring_up",
    "settle",
    "set_clock",
]
