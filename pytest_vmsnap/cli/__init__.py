"""The `vmsnap` command: the store by hand."""

from pytest_vmsnap.cli.command import main

__all__ = ["main"]
