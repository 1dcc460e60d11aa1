"""What waits is shared between runs, also while their tests take long; machines are stand-ins here."""

from __future__ import annotations

import os
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.pool.background_pause import BackgroundPause
from pytest_vmsnap.pool.budget import HostBudget
from pytest_vmsnap.pool.standby import Standbys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEADLINE = 20.0
SNAPSHOT: Any = SimpleNamespace(memory_mib=64)


class Provisioner:
    def make(self, _: object) -> Any:
        return SimpleNamespace(name="a machine")

    def check(self, _: object) -> None:
        pass


@pytest.fixture
def runs() -> list[str]:
    """The runs that there are."""
    return ["one"]


@pytest.fixture
def opened(
    tmp_path: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Standbys]]:
    """Opens the standbys of a run, on a host of two processors; `room` tells whether they find memory."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    found: list[Standbys] = []

    def new(room: Callable[[], bool] = lambda: True) -> Standbys:
        found.append(
            Standbys(
                Provisioner(),  # type: ignore[arg-type]
                budget=HostBudget(tmp_path / "slots", lambda: len(runs)),
                has_room=lambda _: room(),
                discard=lambda _: None,
                pause=BackgroundPause(),
            )
        )
        return found[-1]

    yield new
    for standbys in found:
        standbys.close()


def expect_waiting(standbys: Standbys, number: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while len(standbys._waiting) != number or standbys._on_the_way:
        assert time.monotonic() < deadline, f"{len(standbys._waiting)} wait, not {number}"
        time.sleep(0.01)


def test_a_run_that_has_all_gives_another_its_part_while_no_test_of_it_ends(
    opened: Callable[[], Standbys], runs: list[str]
) -> None:
    one = opened()
    one.expect([SNAPSHOT] * 3)
    expect_waiting(one, 2)
    other = opened()
    other.expect([SNAPSHOT] * 3)  # the first does not know of it yet
    expect_waiting(other, 0)
    runs.append("other")
    expect_waiting(one, 1)
    expect_waiting(other, 1)


def test_what_a_run_has_handed_over_it_has_no_more(opened: Callable[[], Standbys]) -> None:
    one, other = opened(), opened()
    one.expect([SNAPSHOT] * 2)
    expect_waiting(one, 2)
    assert one.take(SNAPSHOT)
    one.expect([])
    expect_waiting(one, 0)
    other.expect([SNAPSHOT] * 2)
    expect_waiting(other, 2)


def test_one_is_made_once_there_is_memory_for_it(opened: Callable[..., Standbys]) -> None:
    room: list[bool] = []
    standbys = opened(lambda: bool(room))
    standbys.expect([SNAPSHOT])
    expect_waiting(standbys, 0)
    room.append(True)
    expect_waiting(standbys, 1)


def test_a_host_that_cannot_be_looked_at_holds_nobody_up(opened: Callable[..., Standbys]) -> None:
    def room() -> bool:
        raise OSError("too many open files")

    standbys = opened(room)
    standbys.expect([SNAPSHOT])
    assert standbys.take(SNAPSHOT) is None


def test_what_was_handed_over_last_is_no_harm_to_a_second_close(opened: Callable[..., Standbys]) -> None:
    standbys = opened()
    standbys.expect([SNAPSHOT])
    expect_waiting(standbys, 1)
    assert standbys.take(SNAPSHOT)
    standbys._makers.shutdown()
    standbys.close()
    standbys.close()


def test_nobody_waits_for_one_that_was_cancelled_before_it_was_begun(opened: Callable[[], Standbys]) -> None:
    standbys = opened()
    busy = threading.Event()
    for _ in range(standbys._makers._max_workers):
        standbys._makers.submit(busy.wait)
    standbys.expect([SNAPSHOT])
    assert standbys._on_the_way
    waiter = threading.Thread(target=standbys.wait_until_gone, args=(SNAPSHOT,), daemon=True)
    closer = threading.Thread(target=standbys.close, daemon=True)
    waiter.start()
    closer.start()
    deadline = time.monotonic() + DEADLINE
    while not standbys._makers._shutdown:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with standbys._makers._shutdown_lock:
        busy.set()
    for thread in (closer, waiter):
        thread.join(DEADLINE)
        assert not thread.is_alive()
