"""Overlays that are written without qemu-img are what it would have made."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import StoreDamaged
from pytest_vmsnap.fork.qcow2 import create_overlay, virtual_size

if TYPE_CHECKING:
    from pathlib import Path

SIZES = (512, 65536, (512 << 20) + 512, 5 << 40)


def qemu_img(*arguments: str | Path) -> str:
    done = subprocess.run(["qemu-img", *arguments], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.mark.parametrize("size", SIZES)
def test_qemu_img_finds_it_sound_and_of_the_backing_files_size(tmp_path: Path, size: int) -> None:
    backing = tmp_path / "ä backing, file.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", backing, str(size))
    overlay = create_overlay(tmp_path / "overlay", backing=backing)
    assert virtual_size(overlay) == size
    assert json.loads(qemu_img("check", "--output=json", overlay))["check-errors"] == 0
    found = json.loads(qemu_img("info", "--output=json", overlay))
    assert found["virtual-size"] == size
    assert found["full-backing-filename"] == str(backing)
    assert found["backing-filename-format"] == "qcow2"
    assert overlay.stat().st_mode & 0o777 == 0o600


def test_what_is_written_goes_to_it_and_the_rest_is_the_backing_files(tmp_path: Path) -> None:
    raw, backing, copy = tmp_path / "raw", tmp_path / "backing", tmp_path / "copy"
    content = bytearray(range(256)) * 4096
    raw.write_bytes(content)
    qemu_img("convert", "-O", "qcow2", raw, backing)
    before = backing.read_bytes()
    overlay = create_overlay(tmp_path / "overlay", backing=backing)
    command = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 70000 200000", str(overlay)]
    subprocess.run(command, check=True, capture_output=True)
    qemu_img("convert", "-O", "raw", overlay, copy)
    content[70000:270000] = b"\x07" * 200000
    assert copy.read_bytes() == content
    assert backing.read_bytes() == before
    assert json.loads(qemu_img("check", "--output=json", overlay))["check-errors"] == 0


def test_a_backing_file_that_is_no_qcow2_is_named(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"QFI")
    with pytest.raises(StoreDamaged, match="short is not a qcow2"):
        create_overlay(tmp_path / "overlay", backing=tmp_path / "short")
    (tmp_path / "there").touch()
    qemu_img("create", "-q", "-f", "qcow2", tmp_path / "good", "1M")
    with pytest.raises(FileExistsError):
        create_overlay(tmp_path / "there", backing=tmp_path / "good")
