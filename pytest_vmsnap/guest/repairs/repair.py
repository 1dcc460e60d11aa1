"""The repairs, in their order."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ChannelError, RepairFailed
from pytest_vmsnap.guest.repairs.entropy import reseed

if TYPE_CHECKING:
    from pytest_vmsnap.guest.channel import Channel
    from pytest_vmsnap.model import Reseeder

log = logging.getLogger("pytest_vmsnap.guest")

CLOCK_SECONDS = 0.3  # that the guest's clock may be behind
CLOCK_TRIES = 5


def repair(channel: Channel, reseeder: Reseeder, *, timeout: float) -> None:
    """Put right in a clone that runs what the moment of its save gets wrong; each within `timeout` seconds.

    The channel is opened with marks of its own, the random numbers are made its own, and the clock is set from
    the host's: it stands at the moment of the save. A user-mode network needs nothing (the forwards are the
    clone's own), and calendar timers were stopped before the save.

    Raises `ChannelError` where the guest does not answer, `RepairFailed` where it could not be repaired.
    """
    channel.open(timeout=timeout)
    reseed(channel, reseeder, timeout=timeout)
    set_clock(channel, timeout=timeout)


def set_clock(channel: Channel, *, timeout: float) -> None:
    """Set the guest's clock to the host's; raises `RepairFailed` where that cannot be done.

    It is behind by no more than the setting took, so a setting that took long is done again.
    """
    for _ in range(CLOCK_TRIES):
        began = time.monotonic()
        try:
            channel.set_clock(timeout=timeout)
        except ChannelError as error:
            raise RepairFailed(f"the clock could not be set: {error.message}") from error
        if (behind := time.monotonic() - began) <= CLOCK_SECONDS:
            return
    log.warning("the guest's clock may be %.1f s behind: the host is overloaded", behind)
