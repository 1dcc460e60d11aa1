"""What an entry needs stays with it, what is in use stays, and the rest goes by its last use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from pytest_vmsnap.progress import Progress, silent
from pytest_vmsnap.store import EntryName, Kind, Store, entry_usages, trim

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", progress=silent())


def entry(store: Store, kind: Kind, key: str, *dependencies: EntryName, used: int = 0) -> EntryName:
    """An entry of 1 MiB, last used at the time `used`."""
    path = store.provide(
        kind, key, f"{kind} {key}", lambda draft: keep(draft / "data", os.urandom(MIB)), depends_on=dependencies
    )
    os.utime(path / "used", (used, used))
    return EntryName(kind=kind, key=key)


def keep(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def left(store: Store) -> set[str]:
    return {str(holding.name) for holding in entry_usages(store)}


def test_what_was_not_used_for_longest_goes_first(store: Store) -> None:
    for number in (3, 1, 2):
        entry(store, "states", str(number), used=number)
    gone = trim(store, 2)
    assert [str(holding.name) for holding in gone] == ["states/1", "states/2"]
    assert left(store) == {"states/3"}


def test_what_others_are_made_on_goes_behind_them(store: Store) -> None:
    image = entry(store, "images", "image", used=1)
    parent = entry(store, "states", "parent", image, used=2)
    entry(store, "states", "child", parent, used=3)
    assert [str(holding.name) for holding in trim(store, 0)] == [
        "states/child",
        "states/parent",
        "images/image",
    ]
    assert left(store) == set()


def test_a_dry_run_removes_nothing(store: Store) -> None:
    entry(store, "states", "one")
    assert len(trim(store, 0, dry=True)) == 1
    assert left(store) == {"states/one"}


def test_what_a_living_run_uses_stays_and_what_a_dead_one_used_goes(store: Store) -> None:
    image = entry(store, "images", "image")
    run = store.runs / "abc"
    run.mkdir()
    lock = FileLock(store.runs / "abc.lock")
    lock.acquire()
    other = Store(store.path, progress=silent())
    other.pins.run = run
    entry(other, "states", "one", image)
    assert trim(store, 0) == []
    lock.release()
    assert len(trim(store, 0)) == 2


def test_what_was_used_again_is_claimed_with_all_that_it_needs(store: Store) -> None:
    image = entry(store, "images", "image")
    entry(store, "states", "one", image)
    run = store.runs / "abc"
    run.mkdir()
    again = Store(store.path, progress=silent())
    again.pins.run = run
    entry(again, "states", "one", image)
    assert again.pins.is_used(image)


def lines_of(store: Store) -> tuple[Store, list[str]]:
    said: list[str] = []
    return Store(store.path, progress=Progress(said.append)), said


@pytest.mark.parametrize("fault", ["truncated", "changed", "gone", "more", "no manifest to be read"])
def test_a_damaged_entry_is_made_anew_and_this_is_said(store: Store, fault: str) -> None:
    name = entry(store, "states", "one")
    data = store.place(name) / "data"
    match fault:
        case "truncated":
            os.truncate(data, 10)
        case "changed":
            data.write_bytes(os.urandom(MIB))
        case "gone":
            data.unlink()
        case "more":
            (data.parent / "stranger").touch()
        case _:
            (data.parent / "manifest.json").write_text("{")
    again, said = lines_of(store)
    entry(again, "states", "one")
    assert data.stat().st_size == MIB
    assert len(said) == 1
    assert said[0].startswith("the states one in the store is damaged and will be rebuilt: ")


def test_what_lost_its_parent_is_made_anew(store: Store) -> None:
    parent = entry(store, "states", "parent")
    entry(store, "states", "child", parent)
    store.remove(parent)
    again, said = lines_of(store)
    entry(again, "states", "child", parent)
    assert len(said) == 1
    assert "states/parent, which it was built on, is missing" in said[0]


def test_an_entry_that_is_made_anew_takes_with_it_what_was_made_on_it(store: Store) -> None:
    parent = entry(store, "states", "parent")
    entry(store, "states", "child", parent)
    again = Store(store.path, progress=silent())
    again.provide("states", "parent", "state", lambda draft: keep(draft / "data", b""), rebuild=True)
    assert left(store) == {"states/parent"}
