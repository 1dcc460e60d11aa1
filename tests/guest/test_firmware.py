"""UEFI and a TPM: what they store belongs to the machine."""

from __future__ import annotations

import shutil
import struct
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.host import uefi_firmware
from pytest_vmsnap.host.firmware import directories

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap import Machine

VARIABLES = "/sys/firmware/efi/efivars"
VENDOR = "12345678-1234-1234-1234-123456789abc"
MOUNTED = f"mountpoint -q {VARIABLES} || mount -t efivarfs efivarfs {VARIABLES}"
NON_VOLATILE = "\\007\\000\\000\\000"  # UEFI, "GetVariable": non-volatile, at boot and at run time
PCR = 23  # the one that any program may extend (TCG PC Client Platform TPM Profile)
NOTHING = "0" * 64

pytestmark = [
    pytest.mark.vm(firmware="uefi", tpm=True),
    pytest.mark.skipif(not shutil.which("swtpm"), reason="needs swtpm"),
    pytest.mark.skipif(not any(any(place.glob("*.json")) for place in directories()), reason="needs OVMF"),
]


def store(vm: Machine, name: str) -> None:
    """Store a variable with UEFI."""
    vm.succeed(f"{MOUNTED}; printf '{NON_VOLATILE}text' >{VARIABLES}/{name}-{VENDOR}")


def stored(vm: Machine) -> set[str]:
    """Which variables of ours UEFI has."""
    names = vm.succeed(f"{MOUNTED}; ls {VARIABLES}").split()
    return {name.removesuffix(f"-{VENDOR}") for name in names if name.endswith(VENDOR)}


def extend(vm: Machine, value: bytes) -> None:
    """Extend the PCR with 32 bytes (TPM 2.0 Library, part 3, "TPM2_PCR_Extend")."""
    session = struct.pack(">IHBH", 0x40000009, 0, 0, 0)
    digests = struct.pack(">IH", 1, 0x000B) + value
    body = struct.pack(">II", PCR, len(session)) + session + digests
    command = struct.pack(">HII", 0x8002, 10 + len(body), 0x182) + body
    sending = f"exec 3<>/dev/tpm0; dd bs={len(command)} count=1 iflag=fullblock >&3; dd bs=4096 count=1 <&3"
    answer = vm.run(sending, input=command, check=True).stdout
    assert struct.unpack(">HII", answer[:10])[2] == 0


def measured(vm: Machine) -> str:
    return vm.succeed(f"cat /sys/class/tpm/tpm0/pcr-sha256/{PCR}").strip().lower()


def test_variables_and_measurements_are_reverted_and_stay_over_a_power_cut(vm: Machine) -> None:
    assert stored(vm) == set()
    assert measured(vm) == NOTHING
    store(vm, "First")
    extend(vm, b"1" * 32)
    once = measured(vm)
    assert once != NOTHING
    vm.snapshot("stored")
    store(vm, "Second")
    extend(vm, b"2" * 32)
    assert stored(vm) == {"First", "Second"}
    assert measured(vm) not in (once, NOTHING)

    vm.revert("stored")
    assert stored(vm) == {"First"}
    assert measured(vm) == once

    store(vm, "Third")
    vm.succeed("sync")
    vm.crash()
    vm.start()
    assert stored(vm) == {"First", "Third"}
    assert measured(vm) == NOTHING  # as after any power on


def test_the_next_test_sees_nothing_of_it(vm: Machine) -> None:
    assert stored(vm) == set()
    assert measured(vm) == NOTHING
    assert vm.succeed("cat /sys/class/tpm/tpm0/tpm_version_major") == "2\n"


@pytest.mark.thorough
def test_they_stay_over_a_reboot(vm: Machine) -> None:
    store(vm, "Kept")
    extend(vm, b"1" * 32)
    vm.reboot()
    assert stored(vm) == {"Kept"}
    assert measured(vm) == NOTHING


STATE = """
from pytest_vmsnap import state

@state
def stored(vm):
    vm.succeed({stored!r})
"""
USED = """
import pytest

@pytest.mark.vm_state("stored")
def test_it(vm):
    assert "InState" in vm.succeed({listed!r})
    {more}
"""
LISTED = f"{MOUNTED}; ls {VARIABLES}"


@pytest.mark.thorough
def test_they_are_part_of_a_state_a_kept_machine_and_an_exported_file(
    project: pytest.Pytester, runner: list[str], command: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{MOUNTED}; printf '{NON_VOLATILE}text' >{VARIABLES}/InState-{VENDOR}"
    project.makeconftest(STATE.format(stored=text))
    added = text.replace("InState", "InTest")
    project.makepyfile(test_it=USED.format(listed=LISTED, more=f"vm.succeed({added!r}); assert 0"))
    project.makeini("[pytest]\nvmsnap_firmware = uefi\n")
    result = project.run(*runner, "--vmsnap-keep=failed")
    result.assert_outcomes(failed=1)
    opened = project.run(command, "open", "test_it.py::test_it", "--exec", LISTED)
    assert "InState" in opened.stdout.str()
    assert "InTest" in opened.stdout.str()

    exported = tmp_path / "stored.vmsnap"
    assert project.run(command, "export", "stored", exported).ret == 0
    flat = tmp_path / "flat.qcow2"
    assert project.run(command, "flatten", "stored", flat).ret == 0
    assert flat.stat().st_size > 100 << 20  # the disk, not the variables
    monkeypatch.setenv("VMSNAP_STORE", str(tmp_path / "other-store"))
    assert project.run(command, "import", exported).ret == 0
    opened = project.run(command, "open", "stored", "--exec", LISTED)
    assert "InState" in opened.stdout.str()


def test_a_machine_without_firmware_for_it_says_what_to_install(
    project: pytest.Pytester, runner: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's own descriptors are hidden, as QEMU's specification says."""
    place = project.path / "config" / "qemu" / "firmware"
    place.mkdir(parents=True)
    for directory in directories():
        for path in directory.glob("*.json"):
            (place / path.name).touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(project.path / "config"))
    project.makepyfile("def test_it(vm): pass")
    result = project.run(*runner, "--vmsnap-firmware=uefi")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*firmware='uefi': this host has no UEFI firmware*", "*sudo apt install ovmf*"]
    )


def test_the_firmware_of_this_host_is_found() -> None:
    assert uefi_firmware("uefi", "pc-i440fx-7.2").code.path.is_file()
