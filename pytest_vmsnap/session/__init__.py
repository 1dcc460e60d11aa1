"""The machines of a pytest run: its host, its snapshots, and the machines that its fixtures provide."""

from pytest_vmsnap.session.engine import Engine
from pytest_vmsnap.session.keep import PROPERTY as KEPT_PROPERTY
from pytest_vmsnap.session.pause_on_failure import expect_terminal
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
