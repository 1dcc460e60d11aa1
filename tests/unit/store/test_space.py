"""The space of a store, on the file system that is here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.progress import Progress
from pytest_vmsnap.store import Store, findings

if TYPE_CHECKING:
    from pytest_vmsnap.model import Finding

MUCH = 1 << 40  # MiB


def looked_at(path: Path, *, limit_mib: int = 1, needed_mib: int = 1) -> tuple[Finding, Finding]:
    room, reflink = findings(path, limit_mib=limit_mib, needed_mib=needed_mib)
    assert (room.name, reflink.name) == ("store", "reflink")
    return room, reflink


def test_a_store_that_is_not_there_is_told_by_its_file_system_and_not_made(tmp_path: Path) -> None:
    room, _ = looked_at(tmp_path / "cache" / "store")
    free = shutil.disk_usage(tmp_path).free >> 30
    assert room.status == "ok"
    assert room.found.startswith(f"{tmp_path}/cache/store: 0 MiB of at most 1 MiB, ")
    assert abs(float(room.found.split()[-3]) - free) < 2
    assert list(tmp_path.iterdir()) == []


def test_what_the_store_has_is_weighed(tmp_path: Path) -> None:
    def build(draft: Path) -> None:
        (draft / "disk").write_bytes(bytes(3 << 20))

    Store(tmp_path, progress=Progress(print)).provide("images", "a" * 64, "image", build)
    room, _ = looked_at(tmp_path)
    assert f"{tmp_path}: 3 MiB of at most 1 MiB" in room.found


def test_a_directory_that_is_no_store_yet_is_left_as_it_is(tmp_path: Path) -> None:
    assert looked_at(tmp_path)[0].status == "ok"
    assert list(tmp_path.iterdir()) == []


def test_too_little_for_one_machine_is_a_failure(tmp_path: Path) -> None:
    room, _ = looked_at(tmp_path, needed_mib=MUCH)
    assert room.status == "failure"
    assert "a machine needs" in room.found
    assert "--vmsnap-store" in room.advice


def test_less_than_the_store_may_grow_by_is_a_warning(tmp_path: Path) -> None:
    room, _ = looked_at(tmp_path, limit_mib=MUCH)
    assert room.status == "warning"
    assert "vmsnap_store_limit" in room.advice


def test_a_place_that_is_no_directory_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    room, reflink = looked_at(tmp_path / "file" / "store")
    assert (room.status, room.found) == ("failure", f"{tmp_path}/file cannot be written to")
    assert reflink.found == "not checked: no store"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
@pytest.mark.parametrize("mode", [0o500, 0])
def test_a_directory_that_is_not_ours_is_a_failure(tmp_path: Path, mode: int) -> None:
    closed = tmp_path / "closed"
    (closed / "below").mkdir(parents=True)
    (closed / "below").chmod(0o500)
    closed.chmod(mode)
    room, _ = looked_at(closed / "below" / "store")
    assert room.status == "failure"
    assert room.found.endswith("cannot be written to")
    closed.chmod(0o700)


def test_a_store_of_another_version_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "format").write_text("99\n")
    room, _ = looked_at(tmp_path)
    assert room.status == "failure"
    assert "format 99" in room.found


def test_a_file_system_without_shared_blocks_is_told() -> None:
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("needs /dev/shm")
    before = set(Path("/dev/shm").iterdir())
    _, reflink = looked_at(Path("/dev/shm/vmsnap-none"))
    assert (reflink.status, reflink.found[:3]) == ("ok", "no,")
    assert set(Path("/dev/shm").iterdir()) == before
