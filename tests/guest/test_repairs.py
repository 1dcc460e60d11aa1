"""What a saved moment gets wrong is right in every machine that is handed over; the saved one is a day old."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import RepairFailed
from pytest_vmsnap.guest import expect_clean, stop_calendar_timers

if TYPE_CHECKING:
    from pytest_vmsnap import Machine

STALL = re.compile(r"stall|soft lockup|hung task|blocked for more than|hrtimer: interrupt took", re.IGNORECASE)


class TestRandomNumbers:
    seen: set[str] = set()  # noqa: RUF012 - what one test leaves to the next

    @pytest.mark.parametrize("number", range(3))
    def test_the_first_command_draws_what_no_machine_has_drawn(self, vm: Machine, number: int) -> None:
        drawn = vm.read_text("/proc/sys/kernel/random/uuid")
        assert drawn not in self.seen
        self.seen.add(drawn)
        assert number < len(self.seen) + 1


@pytest.mark.parametrize("wait", [0.0, 3.0])
def test_the_clock_is_the_hosts_and_nothing_stalls(vm: Machine, wait: float) -> None:
    time.sleep(wait)
    before = time.time()
    seen = float(vm.succeed("date +%s.%N"))
    assert before - 0.5 <= seen <= time.time() + 0.5
    assert not STALL.search(vm.console_log)
    _of_the_boot, revert, since = vm.succeed("dmesg").rpartition("virtual machine fork")
    assert revert
    assert not STALL.search(since)


def test_timers_that_the_boot_has_started_are_stopped_where_they_go_by_the_calendar(vm: Machine) -> None:
    for name, when in {"calendar": "OnCalendar=daily", "boot": "OnBootSec=1d"}.items():
        vm.write_text(f"/run/systemd/system/by-{name}.service", "[Service]\nExecStart=true\n")
        vm.write_text(f"/run/systemd/system/by-{name}.timer", f"[Timer]\n{when}\n")
    vm.succeed("systemctl daemon-reload", "systemctl start by-calendar.timer by-boot.timer")
    assert stop_calendar_timers(vm._channel, timeout=60) == ["by-calendar.timer"]
    vm.fail("systemctl is-active by-calendar.timer")
    vm.succeed("systemctl is-active by-boot.timer")


def test_a_machine_that_somebody_had_is_found_out(vm: Machine) -> None:
    expect_clean(vm._channel, "the-first", timeout=60)
    with pytest.raises(RepairFailed, match=r"the-second is not clean.*the-first:"):
        expect_clean(vm._channel, "the-second", timeout=60)
    vm.succeed("rm /dev/shm/.vmsnap-nonce /run/.vmsnap-nonce")
    with pytest.raises(RepairFailed, match="the-third is not clean"):  # the disk still has it
        expect_clean(vm._channel, "the-third", timeout=60)
