"""The next test's machine waits already, and is as clean as one that is made for it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap import Machine
    from pytest_vmsnap.host import Domain
    from pytest_vmsnap.pool import Pool
    from pytest_vmsnap.pool.standby import Standby
    from pytest_vmsnap.session import VmsnapSession


@pytest.fixture
def pool(vmsnap: VmsnapSession) -> Pool:
    assert vmsnap._engine
    return vmsnap._engine.pool


@pytest.fixture
def waiting(pool: Pool, wait_for: Callable[..., None]) -> Callable[[], Standby]:
    """The standby that waits, as soon as there is one."""

    def found() -> Standby:
        wait_for(lambda: pool._standbys._waiting, "a standby")
        return pool._standbys._waiting[0]

    return found


def cpu_seconds(domain: Domain) -> float:
    """What the domain's QEMU has spent so far (proc(5), ``utime`` and ``stime``)."""
    fields = Path(f"/proc/{domain.pid()}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


class TestHandedOver:
    names: tuple[str, ...] = ()

    def test_while_a_test_runs_the_next_machine_is_made(
        self, vm: Machine, waiting: Callable[[], Standby]
    ) -> None:
        vm.succeed("echo dirty >/root/dirty")
        type(self).names = (waiting().lease.clone.name,)

    def test_the_next_test_has_it_and_it_is_clean(self, vm: Machine, pool: Pool) -> None:
        assert vm.name in self.names
        assert pool.handed_over
        vm.fail("cat /root/dirty")


class TestThatWaitedLong:
    name = ""

    def test_one_that_waits_long_stands_still_and_costs_next_to_no_cpu(
        self, vm: Machine, waiting: Callable[[], Standby], wait_for: Callable[..., None]
    ) -> None:
        standby = waiting()
        domain = standby.lease.clone.domain
        wait_for(lambda: domain.condition() == "paused", "a pause", 60)
        before = cpu_seconds(domain)
        time.sleep(2)  # its clock stands still meanwhile, by more than is allowed
        assert cpu_seconds(domain) - before < 0.1
        type(self).name = vm.name and standby.lease.clone.name

    def test_it_runs_and_its_clock_is_the_hosts(self, vm: Machine) -> None:
        before = time.time()
        seen = float(vm.succeed("date +%s.%N"))
        assert before - 0.5 <= seen <= time.time() + 0.5
        assert vm.name == self.name


class TestBroken:
    name = ""

    @pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
    def test_one_that_breaks_while_it_waits(
        self, vm: Machine, waiting: Callable[[], Standby], end: signal.Signals
    ) -> None:
        domain = waiting().lease.clone.domain
        pid = domain.pid()
        assert pid
        os.kill(pid, end)
        type(self).name = vm.name and domain.name

    def test_is_replaced_and_the_reason_logged(self, vm: Machine, caplog: pytest.LogCaptureFixture) -> None:
        assert vm.name != self.name
        vm.succeed("true")
        said = [r.getMessage() for r in caplog.get_records("setup") if r.name == "pytest_vmsnap.pool"]
        assert [words for words in said if f"the standby {self.name} is broken" in words], said


def test_behind_the_last_there_is_a_test_that_takes_the_one_that_waits(vm: Machine) -> None:
    vm.succeed("true")
