"""What a pytest run has of machines: its host, its snapshots, and who holds what."""

from pytest_vmsnap.session.engine import Engine
from pytest_vmsnap.session.keeping import PROPERTY as KEPT_PROPERTY
from pytest_vmsnap.session.keeping import expect_terminal
from pytest_vmsnap.session.session import SESSION_KEY, SETTINGS_KEY, VmsnapSession
from pytest_vmsnap.session.timings import Record, Revert, StateUse, Timings, Totals, packed, totals, unpacked

__all__ = [
    "Engine",
    "VmsnapSession",
    "SESSION_KEY",
    "SETTINGS_KEY",
    "KEPT_PROPERTY",
    "expect_terminal",
    "Timings",
    "Record",
    "StateUse",
    "Revert",
    "Totals",
    "totals",
    "packed",
    "unpacked",
]
