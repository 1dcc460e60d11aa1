from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.host.doctor.firmware import firmware
from pytest_vmsnap.host.firmware import uefi_firmware

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only directory of descriptors."""
    monkeypatch.setattr("pytest_vmsnap.host.firmware.directories", lambda: (tmp_path,))
    uefi_firmware.cache_clear()
    yield tmp_path
    uefi_firmware.cache_clear()


def test_a_host_without_uefi_is_fine_unless_it_is_asked_for(descriptors: Path) -> None:
    found = firmware(None)
    assert found.status == "ok"
    assert "install the package ovmf" in found.found
    wanted = firmware("uefi")
    assert wanted.status == "failure"
    assert "apt install ovmf" in wanted.advice
    assert str(descriptors) in wanted.found


def test_the_firmware_is_named_with_its_file(descriptors: Path) -> None:
    flash = {"filename": str(descriptors / "code"), "format": "raw"}
    (descriptors / "code").touch()
    written = {
        "interface-types": ["uefi"],
        "mapping": {"device": "flash", "executable": flash, "nvram-template": flash},
        "targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}],
        "features": [],
    }
    (descriptors / "60.json").write_text(json.dumps(written))
    assert firmware("uefi").found == f"BIOS, uefi: {descriptors}/code"
    assert firmware("uefi-secure").status == "failure"
