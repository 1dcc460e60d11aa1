from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import SpecError
from pytest_vmsnap.fork import files

if TYPE_CHECKING:
    from pathlib import Path


def test_a_memory_file_is_sparse_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = files.create(tmp_path / "ram", size=64 << 20)
    found = path.stat()
    assert (found.st_size, found.st_blocks, found.st_mode & 0o777) == (64 << 20, 0, 0o600)


def test_an_overlay_names_its_backing_file(tmp_path: Path) -> None:
    base = files.empty_disk(tmp_path / "base.qcow2", size_mib=8)
    top = files.overlay(tmp_path / "top.qcow2", backing=base, backing_format="qcow2")
    told = subprocess.run(["qemu-img", "info", str(top)], capture_output=True, text=True, check=True).stdout
    assert f"backing file: {base}" in told
    assert files.format_of(top) == "qcow2"


def test_a_disk_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="nowhere cannot be used"):
        files.format_of(tmp_path / "nowhere")
