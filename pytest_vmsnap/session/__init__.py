"""What a pytest run has of machines: its host, its snapshots, and who holds what."""

from pytest_vmsnap.session.session import SESSION_KEY, SETTINGS_KEY, VmsnapSession
from pytest_vmsnap.session.timings import Record, Revert, StateUse, Timings, Totals, packed, totals, unpacked

__all__ = [
    "VmsnapSession",
    "SESSION_KEY",
    "SETTINGS_KEY",
    "Timings",
    "Record",
    "StateUse",
    "Revert",
    "Totals",
    "totals",
    "packed",
    "unpacked",
]
