"""What the installer promises: the notes survive every upgrade, even one that fails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from notes import Notes

from pytest_vmsnap import state

if TYPE_CHECKING:
    from pytest_vmsnap import Machine

RELEASE_1 = Path(__file__).with_name("release-1")
TYPOS = {"migrate.py": "s/(text)/(txet)/", "notesd.py": "s/say_ready()$/say_raedy()/"}

from_release_1 = pytest.mark.vm_state("release_1")


@state(inputs=["release-1/*"])
def release_1(vm: Machine) -> None:
    """Release 1 with a note, instead of release 2."""
    vm.upload(RELEASE_1, "/root/release-1")
    vm.succeed("/root/notesd/install.sh purge", "/root/notesd/install.sh /root/release-1")
    Notes(vm).put("colour", "blue")


@from_release_1
def test_an_upgrade_takes_the_notes_along(vm: Machine, notes: Notes) -> None:
    vm.succeed("/root/notesd/install.sh")
    assert notes.release() == "2"
    assert notes.get("colour") == "blue"


@from_release_1
def test_an_upgrade_that_breaks_is_rolled_back(vm: Machine, notes: Notes) -> None:
    for file, typo in TYPOS.items():
        with vm.rollback():
            vm.succeed(f"sed -i '{typo}' /root/notesd/{file}")
            vm.fail("/root/notesd/install.sh")
            assert notes.release() == "1"
            assert notes.get("colour") == "blue"


@from_release_1
def test_a_power_cut_within_an_upgrade_leaves_the_old_release(vm: Machine, notes: Notes) -> None:
    vm.succeed(
        "echo 'import time; time.sleep(3600)' >>/root/notesd/migrate.py",
        "systemd-run --quiet /root/notesd/install.sh",
    )
    vm.wait_for_file("/var/lib/notesd/2/colour.note")
    vm.crash()
    vm.start()
    vm.wait_for_unit("notesd")
    assert notes.release() == "1"
    assert notes.get("colour") == "blue"


def test_uninstalling_keeps_the_notes(vm: Machine, notes: Notes) -> None:
    notes.put("colour", "blue")
    vm.succeed("/root/notesd/install.sh uninstall")
    vm.wait_for_closed_port(8080)
    vm.succeed("/root/notesd/install.sh")
    assert notes.get("colour") == "blue"
