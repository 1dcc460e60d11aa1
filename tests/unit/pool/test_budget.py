"""How many machines may wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.pool.budget import has_room, most_standbys

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("available", "memory", "expected"),
    [(8000, 512, True), (1900, 4096, True), (1500, 4096, False), (1100, 512, False), (0, 64, False)],
)
def test_what_is_left_to_others_is_not_taken(
    tmp_path: Path, available: int, memory: int, expected: bool
) -> None:
    meminfo = tmp_path / "meminfo"
    lines = {"MemTotal": 10_000, "MemFree": 1, "MemAvailable": available}
    meminfo.write_text(
        "".join(f"{name}: {mib << 10} kB\n" for name, mib in lines.items()) + "HugePages_Total: 0\n"
    )
    assert has_room(memory, meminfo) is expected


def test_whoever_names_a_number_gets_it_and_the_default_is_few() -> None:
    assert [most_standbys(number) for number in (0, 1, 9)] == [0, 1, 9]
    assert 1 <= most_standbys(None) <= 3
