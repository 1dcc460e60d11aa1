from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import StoreDamaged
from pytest_vmsnap.store import fingerprint, stat_fingerprint

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    path = tmp_path / "ram"
    path.touch()
    os.truncate(path, 64 << 20)
    with path.open("r+b") as file:
        file.seek(40 << 20)
        file.write(b"data" * 1000)
    return path


def test_an_unchanged_file_passes(memory: Path) -> None:
    fingerprint(memory).expect_unchanged()


def test_a_write_is_noticed_by_its_time(memory: Path) -> None:
    saved = fingerprint(memory)
    with memory.open("r+b") as file:
        file.write(b"x")
    with pytest.raises(StoreDamaged, match="ram was changed after"):
        saved.expect_untouched()


def test_a_write_that_hides_its_time_is_noticed_by_the_checksum(memory: Path) -> None:
    saved = fingerprint(memory)
    times = memory.stat()
    with memory.open("r+b") as file:
        file.seek(40 << 20)
        file.write(b"DATA")
    os.utime(memory, ns=(times.st_atime_ns, times.st_mtime_ns))
    saved.expect_untouched()
    with pytest.raises(StoreDamaged, match="content of"):
        saved.expect_unchanged()


def test_a_copy_with_another_time_is_known_by_its_content_holes_or_none(memory: Path, tmp_path: Path) -> None:
    saved = fingerprint(memory)
    copy = tmp_path / "copy"
    copy.write_bytes(memory.read_bytes())  # no holes
    shutil.move(copy, memory)
    renewed = saved.renewed()
    assert renewed.checksum == saved.checksum
    renewed.expect_unchanged()


def test_another_file_is_refused(memory: Path) -> None:
    saved = fingerprint(memory)
    with memory.open("r+b") as file:
        file.write(b"x")
    with pytest.raises(StoreDamaged, match="changed after it was saved"):
        saved.renewed()
    os.truncate(memory, 1 << 20)
    with pytest.raises(StoreDamaged, match="has 1048576 bytes"):
        saved.renewed()


def test_without_a_checksum_another_time_is_damage(memory: Path) -> None:
    saved = stat_fingerprint(memory)
    os.utime(memory)
    with pytest.raises(StoreDamaged, match="changed after"):
        saved.renewed()


def test_a_file_that_is_gone_is_damage(memory: Path) -> None:
    saved = fingerprint(memory)
    memory.unlink()
    with pytest.raises(StoreDamaged, match="cannot be read"):
        saved.renewed()
