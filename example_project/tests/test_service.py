"""What the service promises: it comes back, and it keeps the notes that it accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from notes import Notes

    from pytest_vmsnap import Machine


@pytest.mark.vm_readonly
def test_it_is_there_from_boot_on(vm: Machine, notes: Notes) -> None:
    assert vm.succeed("systemctl is-enabled notesd") == "enabled\n"
    assert notes.release() == "2"


@pytest.mark.vm_readonly
def test_it_does_not_run_as_root(vm: Machine) -> None:
    assert vm.succeed("ps -o user= -p $(systemctl show -P MainPID notesd)") == "notesd\n"


def test_notes_survive_a_reboot(vm: Machine, notes: Notes) -> None:
    notes.put("colour", "blue")
    vm.reboot()
    vm.wait_for_unit("notesd")
    assert notes.get("colour") == "blue"


def test_a_stored_note_survives_a_power_cut(vm: Machine, notes: Notes) -> None:
    assert notes.put("colour", "blue") == 204
    vm.crash()
    vm.start()
    vm.wait_for_unit("notesd")
    assert notes.get("colour") == "blue"


def test_it_comes_back_when_it_is_killed(vm: Machine, notes: Notes) -> None:
    notes.put("colour", "blue")
    vm.succeed("systemctl kill --signal=KILL notesd")
    vm.wait_until_succeeds("[ $(systemctl show -P NRestarts notesd) = 1 ]")
    vm.wait_for_unit("notesd")
    assert notes.get("colour") == "blue"


@pytest.mark.vm(disks=[{"size": 64}])
def test_a_full_disk_refuses_a_note_and_spoils_none(vm: Machine, notes: Notes) -> None:
    vm.succeed(
        "systemctl stop notesd",
        "mkfs.ext4 -q /dev/vdb",
        "mount /dev/vdb /var/lib/notesd",
        "systemctl start notesd",
    )
    assert notes.put("colour", "blue") == 204

    vm.fail("cat /dev/zero >/var/lib/notesd/filler")
    assert notes.put("colour", "green" * 10_000) == 507
    assert notes.get("colour") == "blue"

    vm.succeed("rm /var/lib/notesd/filler")
    assert notes.put("colour", "green") == 204
    assert notes.get("colour") == "green"
