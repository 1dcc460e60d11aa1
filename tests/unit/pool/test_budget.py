"""How many machines may wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.pool.budget import MOST, HostBudget, OwnBudget, has_room, most_standbys, share

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys, time
from pathlib import Path
from pytest_vmsnap.pool.budget import HostBudget

budget = HostBudget(Path(sys.argv[1]), lambda: 1)
held = []
while slot := budget.slot():
    held.append(slot)
print(len(held), flush=True)
time.sleep(1000)
"""


@pytest.fixture
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


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


def test_a_run_that_is_alone_has_the_number_that_is_named_or_few() -> None:
    assert [most_standbys(number) for number in (0, 1, 9)] == [0, 1, 9]
    assert 1 <= most_standbys(None) <= MOST


def test_whoever_names_a_number_gets_it_whatever_others_have() -> None:
    budget = OwnBudget(9)
    assert budget.share == 9
    for slot in [budget.slot() for _ in range(20)]:
        slot.release()


@pytest.mark.parametrize(
    ("number", "runs", "expected"),
    [(1, 1, 1), (2, 1, 2), (64, 1, MOST), (2, 2, 1), (8, 4, 2), (8, 3, 2), (16, 4, MOST), (2, 4, 1), (2, 0, 2)],
)
def test_the_slots_are_shared_by_all_runs_and_one_is_for_each(number: int, runs: int, expected: int) -> None:
    assert share(number, runs) == expected


@pytest.mark.usefixtures("two_processors")
def test_no_more_machines_wait_on_the_host_than_it_can_make(tmp_path: Path) -> None:
    one, other = (HostBudget(tmp_path / "slots", lambda: 1) for _ in range(2))
    first, second = one.slot(), one.slot()
    assert first
    assert second
    assert one.slot() is None
    assert other.slot() is None
    first.release()
    assert other.slot()
    assert one.slot() is None


@pytest.mark.usefixtures("two_processors")
def test_one_run_does_not_hold_what_is_anothers_part(tmp_path: Path) -> None:
    runs = 2
    one, other = (HostBudget(tmp_path / "slots", lambda: runs) for _ in range(2))
    assert one.slot()
    assert one.slot() is None
    assert other.slot()
    assert (one.share, other.share) == (1, 1)
    runs = 1
    assert one.slot() is None  # the other has it still
    assert one.share == 2


def test_the_slots_of_a_process_that_was_killed_are_free(tmp_path: Path) -> None:
    slots = tmp_path / "slots"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(slots)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        held = int(process.stdout.readline())
        budget = HostBudget(slots, lambda: 1)
        if held == len(os.sched_getaffinity(0)):
            assert budget.slot() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert [bool(budget.slot()) for _ in range(held)] == [True] * held
