"""The guest's side: channels by which commands and data reach it, and repairs."""

from pytest_vmsnap.guest.audit import Listing, listing
from pytest_vmsnap.guest.boot import settle
from pytest_vmsnap.guest.channel import Channel, Completed, Request, Site, content_of
from pytest_vmsnap.guest.choice import Access
from pytest_vmsnap.guest.planting import ConsoleLogin, seed_image
from pytest_vmsnap.guest.repairs import expect_clean, repair, reseeder_of, set_clock, stop_calendar_timers
from pytest_vmsnap.guest.serial import attend
from pytest_vmsnap.guest.shell import additions, planting_script
from pytest_vmsnap.guest.ssh import SshLogin
from pytest_vmsnap.guest.streams import OUTPUT_LIMIT, Captured, LastBytes, Sink, Source, Written
from pytest_vmsnap.guest.terminal import ESCAPE, Escaped, Terminal, terminal

__all__ = [
    "Channel",
    "Request",
    "Completed",
    "content_of",
    "Sink",
    "Captured",
    "LastBytes",
    "Written",
    "Source",
    "OUTPUT_LIMIT",
    "Site",
    "Access",
    "SshLogin",
    "ConsoleLogin",
    "seed_image",
    "additions",
    "planting_script",
    "settle",
    "Terminal",
    "terminal",
    "ESCAPE",
    "attend",
    "Escaped",
    "repair",
    "reseeder_of",
    "set_clock",
    "stop_calendar_timers",
    "expect_clean",
    "Listing",
    "listing",
]
