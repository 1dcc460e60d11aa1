"""Planting the shell: by whichever way the image offers."""

from pytest_vmsnap.guest.planting.agent import ByAgent
from pytest_vmsnap.guest.planting.plant import Way, additions, plant

__all__ = ["plant", "additions", "Way", "ByAgent"]
