"""The guest side: channels that carry commands and data to the guest, and repairs of clones."""

from pytest_vmsnap.guest.boot import settle
from pytest_vmsnap.guest.bootstrap import ConsoleLogin, seed_image
from pytest_vmsnap.guest.channel import Channel, Completed, Request, Target, content_of
from pytest_vmsnap.guest.channel_factory import ChannelFactory
from pytest_vmsnap.guest.inventory import Inventory, inventory
from pytest_vmsnap.guest.kernel_modules import mount_modules
from pytest_vmsnap.guest.lan import JOIN_SCRIPT, join_network
from pytest_vmsnap.guest.repairs import expect_clean, repair, reseeder_of, set_clock, stop_calendar_timers
from pytest_vmsnap.guest.serial import attach
from pytest_vmsnap.guest.shell import additions, install_script
from pytest_vmsnap.guest.ssh import SshLogin
from pytest_vmsnap.guest.streams import OUTPUT_LIMIT, Captured, FileSink, Sink, Source, Tail
from pytest_vmsnap.guest.terminal import ESCAPE, Escaped, Terminal, terminal

__all__ = [
    "Channel",
    "Request",
    "Completed",
    "content_of",
    "Sink",
    "Captured",
    "Tail",
    "FileSink",
    "Source",
    "OUTPUT_LIMIT",
    "Target",
    "ChannelFactory",
    "SshLogin",
    "mount_modules",
    "ConsoleLogin",
    "seed_image",
    "additions",
    "install_script",
    "settle",
    "Terminal",
    "terminal",
    "ESCAPE",
    "attach",
    "join_network",
    "JOIN_SCRIPT",
    "Escaped",
    "repair",
    "reseeder_of",
    "set_clock",
    "stop_calendar_timers",
    "expect_clean",
    "Inventory",
    "inventory",
]
