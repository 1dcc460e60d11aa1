"""What a saved moment gets wrong, and is put right before a machine is handed out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ChannelError, RepairFailed

if TYPE_CHECKING:
    from pytest_vmsnap.guest.channel import Channel


def set_clock(channel: Channel, *, timeout: float) -> None:
    """Set the guest's clock from the host's: a clone's stands at the moment of the save.

    Raises `RepairFailed` where the guest refuses, or does not answer within `timeout` seconds.
    """
    try:
        channel.set_clock(timeout=timeout)
    except ChannelError as error:
        raise RepairFailed(f"the clock could not be set: {error.message}") from error
