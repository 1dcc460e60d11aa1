"""UEFI firmware, found by QEMU's firmware descriptors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.errors import HostError
from pytest_vmsnap.host.firmware import UefiFirmware, directories, uefi_firmware

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.model import Firmware

MACHINE, MODERN = "pc-i440fx-7.2", "pc-q35-7.2"


class Firmwares:
    """Directories of descriptors, the highest priority first, and the files that they name."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.directories = tuple(place / name for name in ("own", "etc", "usr"))
        for path in self.directories:
            path.mkdir()

    def add(self, name: str, *features: str, directory: int = 2, **changes: Any) -> Path:
        """Describe a build as Debian does, with `changes`; returns its code's file."""
        code, variables = self.place / f"{name}.code", self.place / f"{name}.vars"
        code.write_bytes(name.encode())
        variables.write_bytes(b"variables")
        machines = ["pc-q35-*"] if "requires-smm" in features else ["pc-i440fx-*", "pc-q35-*"]
        written = {
            "description": name,
            "interface-types": ["uefi"],
            "mapping": {
                "device": "flash",
                "executable": {"filename": str(code), "format": "raw"},
                "nvram-template": {"filename": str(variables), "format": "raw"},
            },
            "targets": [{"architecture": "x86_64", "machines": machines}],
            "features": ["acpi-s3", *features],
            "tags": [],
        }
        (self.directories[directory] / f"{name}.json").write_text(json.dumps(written | changes))
        return code

    def find(self, firmware: Firmware = "uefi", machine: str = MACHINE) -> UefiFirmware:
        uefi_firmware.cache_clear()
        return uefi_firmware(firmware, machine, self.directories)


SECURE = ("secure-boot", "requires-smm")


@pytest.fixture
def firmwares(tmp_path: Path) -> Firmwares:
    return Firmwares(tmp_path)


def test_the_first_build_that_fits_is_used(firmwares: Firmwares) -> None:
    enrolled = firmwares.add("40-enrolled", *SECURE, "enrolled-keys")
    firmwares.add("50-secure", *SECURE)
    plain = firmwares.add("60-plain")
    firmwares.add("70-later")
    assert firmwares.find().code.path == plain
    assert firmwares.find("uefi-secure", MODERN).code.path == enrolled


def test_a_file_of_higher_priority_replaces_or_hides_one_of_the_same_name(firmwares: Firmwares) -> None:
    firmwares.add("50-a")
    second = firmwares.add("60-b")
    (firmwares.directories[1] / "50-a.json").write_text("")
    assert firmwares.find().code.path == second
    own = firmwares.add("60-b", directory=0, description="mine")
    assert firmwares.find().description == "mine"
    assert firmwares.find().code.path == own


def test_what_does_not_fit_or_cannot_be_read_is_left_out(firmwares: Firmwares) -> None:
    firmwares.add("10-arm", targets=[{"architecture": "aarch64", "machines": ["virt-*"]}])
    firmwares.add("20-bios", **{"interface-types": ["bios"]})
    firmwares.add("30-memory", mapping={"device": "memory", "filename": "/x"})
    firmwares.add("40-combined", mapping={"device": "flash", "mode": "combined"})
    firmwares.add(
        "50-stateless", mapping={"device": "flash", "executable": {"filename": "/x", "format": "raw"}}
    )
    firmwares.add("60-gone").unlink()
    (firmwares.directories[2] / "70-damaged.json").write_text("{")
    (firmwares.directories[2] / "80-list.json").write_text("[]")
    with pytest.raises(HostError) as caught:
        firmwares.find()
    assert f"no UEFI firmware for QEMU's {MACHINE}" in caught.value.message
    assert str(firmwares.directories[2]) in caught.value.message
    assert "apt install ovmf" in (caught.value.hint or "")
    plain = firmwares.add("90-plain")
    assert firmwares.find().code.path == plain


def test_secure_boot_needs_a_machine_and_a_build_that_have_it(firmwares: Firmwares) -> None:
    firmwares.add("50-secure", *SECURE)
    firmwares.add("60-plain")
    with pytest.raises(HostError, match="no UEFI firmware with Secure Boot"):
        firmwares.find("uefi-secure", MODERN)


def test_the_digest_is_that_of_both_files(firmwares: Firmwares) -> None:
    code = firmwares.add("60-plain")
    before = firmwares.find().digest()
    code.write_bytes(b"newer")
    assert firmwares.find().digest() != before


def test_the_directories_are_those_of_the_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/me/conf")
    assert [str(path) for path in directories()] == [
        "/home/me/conf/qemu/firmware",
        "/etc/qemu/firmware",
        "/usr/share/qemu/firmware",
    ]
