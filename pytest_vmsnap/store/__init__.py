"""The directory with what outlives a run: entries that appear whole or not at all."""

from pytest_vmsnap.store.directory import Store

__all__ = ["Store"]
