"""The repairs of a clone, in their order."""

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

CLOCK_SECONDS = 0.3  # how far the guest's clock may be behind
CLOCK_TRIES = 5


def repair(channel: Channel, reseeder: Reseeder, *, timeout: float) -> None:
    """Repair a clone that runs again after its restore; each step has `timeout` seconds.

    The channel is opened with new marks, the random number generator gets its own seed, and the clock, which
    stands at the moment of the save, is set to the host's. A user-mode network needs nothing (the forwards are
    the clone's own), and calendar timers were stopped before the save.

    Raises `ChannelError` if the guest does not answer, `RepairFailed` if a repair fails.
    """
    channel.open(timeout=timeout)
    reseed(channel, reseeder, timeout=timeout)
    set_clock(channel, timeout=timeout)


def set_clock(channel: Channel, *, timeout: float) -> None:
    """Set the guest's clock to the host's; raise `RepairFailed` if that fails.

    The clock is behind by at most the time that setting it took, so a slow try is repeated.
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
