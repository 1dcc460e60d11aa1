"""The end of a guest's boot."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import GuestHung
from pytest_vmsnap.guest.boot_watch import BootWatch
from pytest_vmsnap.guest.channel import Request

if TYPE_CHECKING:
    from pytest_vmsnap.guest.channel import Channel
    from pytest_vmsnap.host import Domain

# `--wait` since systemd 240; units that failed are the image's affair
SETTLE = """
if command -v systemctl; then systemctl is-system-running --wait; fi
if command -v udevadm; then udevadm settle; fi
true
"""
FIRST_LOOK_SECONDS = 5.0
# Between two looks at the console it is asked anew. The pause grows, so that a guest that is slow to answer at
# all comes to an end.
LONGER = 1.5


def settle(channel: Channel, domain: Domain, *, timeout: float) -> None:
    """Let the boot of `domain` come to its end: what is unfinished at a save goes on in every clone.

    Raises `BootError` where it has come to a dead end, `GuestHung` where it does not end within `timeout`
    seconds.
    """
    watch = BootWatch(lambda: domain)
    deadline = time.monotonic() + timeout
    pause = FIRST_LOOK_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        if not channel.run(Request(text=SETTLE), timeout=min(pause, left)).timed_out:
            return
        watch.look()
        pause *= LONGER
    raise GuestHung(f"the guest answers, and its boot had not come to its end within {timeout:.0f} s")
