"""The power of a real machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import GuestGone

if TYPE_CHECKING:
    from pytest_vmsnap import Machine

BOOT_ID = "/proc/sys/kernel/random/boot_id"


@pytest.mark.contract
def test_a_reboot_comes_back_with_the_same_disk_and_a_new_boot(vm: Machine) -> None:
    before = vm.read_text(BOOT_ID)
    vm.write_text("/root/kept", "synced\n")
    vm.write_text("/dev/shm/lost", "in memory\n")
    vm.reboot()
    assert vm.read_text(BOOT_ID) != before
    assert vm.read_text("/root/kept") == "synced\n"
    vm.fail("test -e /dev/shm/lost")


@pytest.mark.contract
def test_a_power_cut_loses_what_was_not_synced_and_keeps_what_was(vm: Machine) -> None:
    vm.write_text("/root/synced", "kept\n")
    vm.succeed("sync")
    vm.write_text("/root/unsynced", "lost\n")
    vm.crash()
    assert not vm.is_running
    with pytest.raises(GuestGone, match="is off"):
        vm.run("true")
    vm.start()
    assert vm.is_running
    assert vm.read_text("/root/synced") == "kept\n"
    assert vm.run("cat /root/unsynced").text == ""


def test_a_machine_that_was_shut_down_boots_again_from_its_disk(vm: Machine) -> None:
    vm.write_text("/root/kept", "by a clean end\n")
    vm.shutdown()
    assert not vm.is_running
    vm.shutdown()
    vm.start()
    vm.start()
    assert vm.read_text("/root/kept") == "by a clean end\n"
    assert "reboot: Power down" in vm.console_log
