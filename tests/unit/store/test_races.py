"""Many processes over one store, at the same moments."""

from __future__ import annotations

import multiprocessing
import os
import threading
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.host import embedded_driver
from pytest_vmsnap.progress import silent
from pytest_vmsnap.store import EntryName, Store, entry_usages, manifest, trim

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1 << 20
FORK = multiprocessing.get_context("fork")


def at_once(*works: Callable[[], object]) -> list[str]:
    """Run each of `works` in a process of its own, all from one moment on; returns what they raised."""
    barrier = FORK.Barrier(len(works))
    failures = FORK.SimpleQueue()

    def run(work: Callable[[], object]) -> None:
        barrier.wait()
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told by who waits
            failures.put(repr(error))

    processes = [FORK.Process(target=run, args=(work,)) for work in works]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = []
    while not failures.empty():
        found.append(failures.get())
    return found


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("times", [30, pytest.param(300, marks=pytest.mark.thorough)])
def test_runs_that_start_at_once_on_a_fresh_store_all_open_it(tmp_path: Path, times: int) -> None:
    failed = []
    for number in range(times):
        path = tmp_path / str(number)

        def start(path: Path = path) -> None:
            store = Store(path, progress=silent())
            store.provide("images", "k", "image", lambda draft: _touch(draft / "disk"))
            list(store.path.iterdir())
            assert [each.name for each in entry_usages(store)] == [EntryName(kind="images", key="k")]

        failed += at_once(start, start)
    assert failed == []


def _touch(path: Path) -> None:
    path.touch()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_runs_that_note_new_times_of_a_copied_entry_at_once_find_it_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", progress=silent())
    place = store.provide("states", "k", "state", lambda draft: _touch(draft / "disk"))
    for number in range(30):
        os.utime(place / "disk", (number, number))
        assert at_once(*[lambda: manifest.check(place)] * 3) == []
    assert sorted(path.name for path in place.iterdir()) == ["built", "disk", "manifest.json", "used"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_runs_that_trim_at_once_remove_what_is_too_much_and_no_more(tmp_path: Path) -> None:
    for number in range(10):
        store = Store(tmp_path / str(number), progress=silent())
        for key in range(8):
            store.provide("images", str(key), "image", lambda draft: _fill(draft / "disk"))
        assert at_once(*[lambda store=store: trim(store, 4)] * 3) == []
        assert len(entry_usages(store)) == 3


def _fill(path: Path) -> None:
    path.write_bytes(os.urandom(MIB))


def test_what_another_run_begins_to_use_is_not_trimmed(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", progress=silent())
    store.provide("images", "k", "image", lambda draft: _fill(draft / "disk"))
    used = Store(tmp_path / "store", progress=silent())
    (used.runs / "other").mkdir()
    used.pins.run = used.runs / "other"
    looked = store.pins.is_used(EntryName(kind="images", key="k"))
    used.pins.add(EntryName(kind="images", key="k"))  # after the other has looked, and before it removes
    store.pins.run = used.runs / "other"
    assert not looked
    assert not store.remove(EntryName(kind="images", key="k"), unless_used=True)
    assert store.entry("images", "k")


def test_what_libvirt_has_learned_is_taken_while_another_run_writes_it(tmp_path: Path) -> None:
    learned, root = tmp_path / "learned", tmp_path / "root"
    source = tmp_path / "source"
    (source / embedded_driver.CACHE).mkdir(parents=True)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            for name in range(5):
                (source / embedded_driver.CACHE / f"{name}.xml").write_text(f"<{number}/>" * 1000)
            embedded_driver.keep_learned(source, learned=learned)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(100):
            place = root / str(number)
            place.mkdir(parents=True)
            embedded_driver.prepare(place, learned=learned)
    finally:
        stop.set()
        writer.join()
