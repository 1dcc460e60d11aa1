"""A guest that boots: until its channel is there, and until it has come to rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.errors import GuestHung
from pytest_vmsnap.guest.channel import Request
from pytest_vmsnap.guest.planting import ByAgent, plant
from pytest_vmsnap.guest.shell import ShellChannel

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap.guest.channel import Channel
    from pytest_vmsnap.host import Domain

# `--wait` since systemd 240; units that failed are the image's affair
SETTLE = """
if command -v systemctl; then systemctl is-system-running --wait; fi
if command -v udevadm; then udevadm settle; fi
true
"""


def bring_up(channel: Channel, domain: Callable[[], Domain], *, has_shell: bool, timeout: float) -> None:
    """Wait until a guest that boots answers by its channel, which is planted if need be.

    `has_shell` says that the guest starts the planted shell by itself.

    Raises `GuestGone` where it ends, `GuestHung` where it does not answer within `timeout` seconds.
    """
    if isinstance(channel, ShellChannel):
        channel.connect()
        patience = timeout / 2 if has_shell else 0.0
        plant(channel, domain, [ByAgent(domain)], patience=patience, timeout=timeout)
    else:
        channel.open(timeout=timeout)


def settle(channel: Channel, *, timeout: float) -> None:
    """Let the boot come to its end: what is unfinished at a save goes on in every clone, within a test.

    Raises `GuestHung` where it does not within `timeout` seconds.
    """
    if channel.run(Request(text=SETTLE), timeout=timeout).timed_out:
        raise GuestHung(f"the guest answers, and its boot had not come to its end within {timeout:.0f} s")
