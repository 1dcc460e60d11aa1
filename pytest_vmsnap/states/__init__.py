"""Known-good states, and how they are made."""

from pytest_vmsnap.states.base import BASE, DiedOfKvm, build_base, image_request

__all__ = ["build_base", "image_request", "BASE", "DiedOfKvm"]
