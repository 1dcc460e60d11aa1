"""The `vmsnap` command."""

from pytest_vmsnap.cli.command import main

__all__ = ["main"]
