"""Repairs of what is wrong in a restored guest, before its machine is handed out."""

from pytest_vmsnap.guest.repairs.entropy import reseeder_of
from pytest_vmsnap.guest.repairs.nonce import expect_clean
from pytest_vmsnap.guest.repairs.repair import repair, set_clock
from pytest_vmsnap.guest.repairs.timers import stop_calendar_timers

__all__ = ["repair", "set_clock", "reseeder_of", "stop_calendar_timers", "expect_clean"]
