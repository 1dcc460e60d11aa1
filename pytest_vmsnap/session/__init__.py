"""What a pytest run has of machines: its host, its snapshots, and who holds what."""

from pytest_vmsnap.session.session import SESSION_KEY, SETTINGS_KEY, VmsnapSession

__all__ = ["VmsnapSession", "SESSION_KEY", "SETTINGS_KEY"]
