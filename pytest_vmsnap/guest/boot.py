"""The end of a guest's boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.errors import GuestHung
from pytest_vmsnap.guest.boot_watch import watched
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


def settle(channel: Channel, domain: Domain, *, timeout: float) -> None:
    """Let the boot of `domain` come to its end: what is unfinished at a save goes on in every clone.

    Raises `BootError` where it has come to a dead end, `GuestHung` where it does not end within `timeout`
    seconds.
    """
    with watched(domain) as watch:
        try:
            if not channel.run(Request(text=SETTLE), timeout=timeout).timed_out:
                return
        except GuestHung:
            watch.look()  # it may know the reason
            raise
        watch.look()
    raise GuestHung(f"the guest answers, and its boot had not come to its end within {timeout:.0f} s")
