"""The end of a guest's boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.errors import GuestHung
from pytest_vmsnap.guest.boot_watch import watched
from pytest_vmsnap.guest.channel import Request

if TYPE_CHECKING:
    from pytest_vmsnap.guest.channel import Channel
    from pytest_vmsnap.host import Domain

# `--wait` since systemd 240; failed units are up to the image
SETTLE = """
if command -v systemctl; then systemctl is-system-running --wait; fi
if command -v udevadm; then udevadm settle; fi
true
"""


def settle(channel: Channel, domain: Domain, *, timeout: float) -> None:
    """Wait until the boot of `domain` is finished: what is unfinished at a save goes on in every clone.

    Raises `BootError` if the boot has come to a dead end, `GuestHung` if it takes more than `timeout` seconds.
    """
    with watched(domain) as watch:
        try:
            if not channel.run(Request(text=SETTLE), timeout=timeout).timed_out:
                return
        except GuestHung:
            watch.look()  # it may know the reason
            raise
        watch.look()
    raise GuestHung(f"the guest answers, but its boot did not finish within {timeout:.0f} s")
