"""Installing what a channel needs in a guest, with a method that the image supports."""

from pytest_vmsnap.guest.bootstrap.agent import ViaAgent
from pytest_vmsnap.guest.bootstrap.cloud_init import ViaCloudInit, seed_image
from pytest_vmsnap.guest.bootstrap.connect import connect_or_install
from pytest_vmsnap.guest.bootstrap.console import ConsoleLogin, ViaConsole
from pytest_vmsnap.guest.bootstrap.method import BootstrapMethod
from pytest_vmsnap.guest.bootstrap.ssh import ViaSsh

__all__ = [
    "connect_or_install",
    "BootstrapMethod",
    "ViaAgent",
    "ViaCloudInit",
    "seed_image",
    "ViaConsole",
    "ConsoleLogin",
    "ViaSsh",
]
