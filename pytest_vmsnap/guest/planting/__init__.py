"""Planting what a channel needs in a guest: by whichever way the image offers."""

from pytest_vmsnap.guest.planting.agent import ByAgent
from pytest_vmsnap.guest.planting.console import ByConsole, ConsoleLogin
from pytest_vmsnap.guest.planting.reach import reach
from pytest_vmsnap.guest.planting.seed import BySeed, seed_image
from pytest_vmsnap.guest.planting.way import Way

__all__ = ["reach", "Way", "ByAgent", "BySeed", "seed_image", "ByConsole", "ConsoleLogin"]
