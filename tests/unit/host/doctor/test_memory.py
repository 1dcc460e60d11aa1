"""The host's memory, by files in the place of /proc/meminfo."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.host.doctor import memory

if TYPE_CHECKING:
    from pathlib import Path


def meminfo(directory: Path, available: int) -> Path:
    path = directory / "meminfo"
    path.write_text(f"MemTotal: {8192 << 10} kB\nMemAvailable: {available << 10} kB\nHugePages_Total: 0\n")
    return path


@pytest.mark.parametrize(
    ("available", "ahead", "room", "status", "words"),
    [
        (6000, 2, True, "ok", "8.0 GiB, 5.9 GiB available; machines of 512 MiB, up to 2 made ahead"),
        (6000, 0, False, "ok", "none made ahead"),
        (900, 2, False, "warning", "too little to make any ahead"),
        (500, 2, False, "failure", "500 MiB available"),
    ],
)
def test_what_is_available_is_told_with_what_fits(
    tmp_path: Path, available: int, ahead: int, room: bool, status: str, words: str
) -> None:
    found = memory(512, ahead=ahead, has_room=lambda: room, meminfo=meminfo(tmp_path, available))
    assert found.status == status
    assert words in found.found
    assert bool(found.advice) is (status != "ok")


@pytest.mark.parametrize("text", ["", "MemTotal:", "nonsense and more\n", None])
def test_a_file_that_does_not_tell_is_a_warning(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "meminfo").write_text(text)
    found = memory(512, ahead=1, has_room=lambda: True, meminfo=tmp_path / "meminfo")
    assert found.status == "warning"
    assert str(tmp_path / "meminfo") in found.found
