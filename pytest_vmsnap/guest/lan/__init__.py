"""A guest on its cluster's private network."""

from pytest_vmsnap.guest.lan.join import JOIN_SCRIPT, join_network

__all__ = ["join_network", "JOIN_SCRIPT"]
