"""Whatever a test does to its machine, the next test finds nothing of it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import ChannelError, CommandTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap import Machine

# What a guest is, as far as a test could have changed it: files, mounts, processes, memory, boot. udev ends its
# workers when they were idle for a while: a machine that is young has them still.
CENSUS = r"""
find /etc /root /srv -xdev -type f -exec md5sum {} + | sort
cut -d' ' -f1-4 /proc/mounts
ps -eo args= | grep -Ev '^(\[|ps |sh |find|sort|cat$)|grep|setsid|udev-worker' | sort
cat /proc/sys/kernel/random/boot_id /proc/sys/vm/swappiness
cat /dev/shm/known-good
df --output=target,itotal / | tail -1
"""


def wipe_etc(vm: Machine) -> None:
    vm.run("rm -rf /etc/* /usr/bin/* ; sync")


def cut_the_power(vm: Machine) -> None:
    vm.crash()
    assert not vm.is_running


def in_a_moment(vm: Machine, script: str) -> None:
    """Begin what the guest may not survive, after the command that begins it was answered."""
    vm.succeed(f"(sleep 0.5; {script}) >/dev/null 2>&1 &")


def panic(vm: Machine) -> None:
    in_a_moment(vm, "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger")
    vm.wait_for_console_text("Kernel panic - not syncing: sysrq triggered crash", timeout=60)


def kill_init(vm: Machine) -> None:
    in_a_moment(vm, "kill -SEGV 1")  # a crash: it cannot be killed from within
    vm.wait_until_fails("timeout 5 systemctl list-units", timeout=60)


def fill_the_disk(vm: Machine) -> None:
    vm.succeed("fallocate -l $(($(stat -f -c '%f * %S' /) - 30000000)) /srv/most")
    full = vm.run("cat /dev/zero >/srv/zeros", timeout=120)
    assert b"No space left on device" in full.stderr
    vm.fail("echo more >/srv/more && sync /srv/more && [ -s /srv/more ]")


def bomb(vm: Machine) -> None:
    in_a_moment(vm, "bomb() { bomb | bomb & }; bomb")
    with suppress(ChannelError, CommandTimeout):  # it grows until the guest can answer no more
        vm.wait_until_succeeds("[ $(ls -d /proc/[0-9]* | wc -l) -gt 500 ]", timeout=5)


def change_a_little_of_everything(vm: Machine) -> None:
    vm.succeed(
        "echo 42 >/proc/sys/vm/swappiness",
        "mount -t tmpfs none /srv",
        "echo changed >/etc/motd",
        "echo else >/dev/shm/known-good",
        "sleep 1000 >/dev/null 2>&1 &",
        "rm -f /root/prepared",
    )


@pytest.fixture(scope="module")
def census(vm_module: Machine) -> str:
    return vm_module.succeed(CENSUS)


HARMS = [
    wipe_etc,
    cut_the_power,
    panic,
    kill_init,
    fill_the_disk,
    bomb,
    change_a_little_of_everything,
]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__, scope="class")
class TestAfterHarm:
    """Each harm is a test, and so is what comes after it."""

    def test_a_test_may_do_this(self, vm: Machine, harm: Callable[[Machine], None]) -> None:
        harm(vm)

    @pytest.mark.usefixtures("harm")
    def test_the_next_test_finds_nothing_of_it(self, vm: Machine, census: str) -> None:
        assert vm.succeed(CENSUS) == census


@pytest.mark.smoke
def test_what_the_preparation_left_is_there_in_every_machine(vm: Machine) -> None:
    assert vm.read_text("/root/prepared") == "by the conftest\n"
    assert vm.read_text("/dev/shm/known-good") == "in memory\n"
    vm.succeed("pgrep -f 'sleep 424242'")


@pytest.mark.smoke
def test_two_machines_have_other_random_numbers(
    request: pytest.FixtureRequest, vm: Machine, vm_module: Machine
) -> None:
    read = "cat /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | od -An -tx1"
    assert vm.succeed(read).split("\n")[0] != vm_module.succeed(read).split("\n")[0]


@pytest.mark.smoke
def test_the_clock_is_the_hosts(vm: Machine) -> None:
    import time

    before = time.time()
    seen = float(vm.succeed("date +%s.%N"))
    assert before - 0.5 <= seen <= time.time() + 0.5
