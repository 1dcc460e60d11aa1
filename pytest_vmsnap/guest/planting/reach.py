"""Which way of planting works, and waiting until the guest answers."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

from pytest_vmsnap.errors import ChannelError, GuestGone, GuestHung
from pytest_vmsnap.guest.boot_watch import BootWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_vmsnap.guest.planting.way import Way
    from pytest_vmsnap.host import Domain

log = logging.getLogger("pytest_vmsnap.planting")

ROUND_SECONDS = 1.0  # between two looks at the ways
ANSWER_SECONDS = 30.0  # for the first answer of what was planted
FIRST_TRY_SECONDS = 5.0  # before anything is planted: a clone has it all, and may be slow to answer


class Plantable(Protocol):
    """A channel whose guest half has to be in the guest."""

    def greet(self, deadline: float) -> bool:
        """Whether the guest's half answers by the `deadline` (monotonic clock)."""

    def planted(self) -> str:
        """The script for POSIX ``sh`` that puts it there, run as root in the guest; twice is no harm."""


def reach(
    channel: Plantable,
    domain: Callable[[], Domain],
    ways: Sequence[Way],
    *,
    at_boot: bool,
    timeout: float,
) -> None:
    """Return when the guest answers by `channel`; what that needs is planted if it does not by itself.

    With `at_boot` the guest is known to start it, and for half of the time nothing else is tried. Raises
    `GuestGone` where the guest ended, `BootError` where its boot has come to a dead end, `GuestHung` where its
    kernel panicked, or after `timeout` seconds, with what kept each way.
    """
    started = time.monotonic()
    deadline = started + timeout
    patience = timeout / 2 if at_boot else min(timeout / 2, FIRST_TRY_SECONDS)
    failed: dict[str, str] = {}
    watch = BootWatch(domain)
    try:
        while not channel.greet(min(deadline, time.monotonic() + ROUND_SECONDS)):
            if (now := time.monotonic()) >= deadline:
                break
            watch.look()
            # a way by the console would press Enter in emergency mode, and take its shell for the system's
            if ways and now > started + patience and not watch.suspects:
                _try(ways, failed, channel.planted(), deadline)
        else:
            return
    finally:
        for way in ways:
            way.close()
    reasons = [f"{way.name}: {failed.get(way.name) or way.problem()}" for way in ways]
    tried = f"; to plant it, no way into the guest was found: {'; '.join(reasons)}" if ways else ""
    raise GuestHung(f"it did not answer within {timeout:.0f} s{tried}", console=domain().console_text())


def _try(ways: Sequence[Way], failed: dict[str, str], script: str, deadline: float) -> None:
    """Plant by the first way that is ready, each at most once."""
    for way in ways:
        if way.name in failed or not way.is_ready():
            continue
        try:
            way.plant(script, timeout=max(1.0, min(ANSWER_SECONDS, deadline - time.monotonic())))
        except GuestGone:
            raise
        except ChannelError as error:
            failed[way.name] = error.message
            log.info("planting by %s: %s", way.name, error.message)
            continue
        failed[way.name] = "it was planted, and did not answer"
        log.info("planted by %s", way.name)
        return
