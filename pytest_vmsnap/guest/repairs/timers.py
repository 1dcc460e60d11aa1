"""Timers: when the clock steps to the present, every calendar timer whose time has passed fires."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.errors import GuestHung
from pytest_vmsnap.guest.channel import Request

if TYPE_CHECKING:
    from pytest_vmsnap.guest.channel import Channel

# systemd.timer(5): those with OnCalendar=; timers that count from the boot ignore the clock
STOP = """
command -v systemctl >/dev/null || exit 0
systemctl list-units --type=timer --state=active --plain --no-legend | while read -r unit _; do
  case $(systemctl show --property=TimersCalendar --value "$unit") in
    '') ;;
    *) systemctl stop "$unit" && echo "$unit" ;;
  esac
done
"""


def stop_calendar_timers(channel: Channel, *, timeout: float) -> list[str]:
    """Stop the calendar timers that the boot started, and return their names.

    Raises `GuestHung` if that takes more than `timeout` seconds.
    """
    done = channel.run(Request(text=STOP), timeout=timeout)
    if done.timed_out:
        raise GuestHung(f"the guest's timers could not be stopped within {timeout:.0f} s")
    return done.stdout.decode().split()
