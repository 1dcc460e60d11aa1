"""The end of a guest's boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.errors import GuestHung
from pytest_vmsnap.guest.channel import Request

if TYPE_CHECKING:
    from pytest_vmsnap.guest.channel import Channel

# `--wait` since systemd 240; units that failed are the image's affair
SETTLE = """
if command -v systemctl; then systemctl is-system-running --wait; fi
if command -v udevadm; then udevadm settle; fi
true
"""


def settle(channel: Channel, *, timeout: float) -> None:
    """Let the boot come to its end: what is unfinished at a save goes on in every clone, within a test.

    Raises `GuestHung` where it does not within `timeout` seconds.
    """
    if channel.run(Request(text=SETTLE), timeout=timeout).timed_out:
        raise GuestHung(f"the guest answers, and its boot had not come to its end within {timeout:.0f} s")
