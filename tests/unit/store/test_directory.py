"""Entries appear whole or not at all, however many runs build them at once."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from pytest_vmsnap.errors import StoreError, StoreFormat, StoreFull
from pytest_vmsnap.progress import silent
from pytest_vmsnap.store import EntryName, LockOwner, Store

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE = 60.0
REPEATED = re.compile(r" \.\.\. \(\d+ s\)$")

# builds the entry "k", noting each build; says "building", and goes on when told to
BUILDER = """\
import sys
from pathlib import Path
from pytest_vmsnap.progress import Progress
from pytest_vmsnap.store import LockOwner, EntryName, Store

def build(draft):
    with open(sys.argv[2], "a") as notes:
        notes.write("built\\n")
    (draft / "begun").write_text("half")
    print("building", flush=True)
    sys.stdin.readline()
    (draft / "disk").write_text("whole")

store = Store(Path(sys.argv[1]), progress=Progress(lambda line: print(line, flush=True)))
entry = store.provide("images", "k", "image k", build)
print((entry / "disk").read_text(), flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(path: Path) -> Store:
    return Store(path, progress=silent())


def whole(draft: Path) -> None:
    (draft / "disk").write_text("whole")


def left_in(path: Path) -> list[str]:
    return sorted(entry.name for entry in (path / "images").iterdir())


def builder(path: Path, notes: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(path), str(notes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    """The next line of `process`, other than one that repeats what it waits for."""
    assert process.stdout is not None
    ending = threading.Timer(DEADLINE, process.kill)  # its line is then empty
    ending.start()
    try:
        while REPEATED.search(line := process.stdout.readline().strip()):
            pass
    finally:
        ending.cancel()
    return line


def test_an_entry_is_built_once_and_found_again(store: Store) -> None:
    builds: list[Path] = []

    def build(draft: Path) -> None:
        builds.append(draft)
        whole(draft)

    assert store.entry("images", "k") is None
    entry = store.provide("images", "k", "image k", build)
    assert (entry / "disk").read_text() == "whole"
    assert store.provide("images", "k", "image k", build) == entry
    assert store.entry("images", "k") == entry
    assert len(builds) == 1


def test_what_is_being_built_is_not_seen(store: Store) -> None:
    def build(draft: Path) -> None:
        whole(draft)
        assert store.entry("images", "k") is None

    store.provide("images", "k", "image k", build)


def test_a_failing_build_leaves_nothing_and_can_be_tried_again(store: Store, path: Path) -> None:
    def fail(draft: Path) -> None:
        (draft / "begun").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.provide("images", "k", "image k", fail)
    assert left_in(path) == []
    store.provide("images", "k", "image k", whole)
    assert left_in(path) == ["k"]


def test_of_two_runs_that_want_the_same_one_builds_and_the_other_waits_and_says_so(
    path: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    with builder(path, notes) as first:
        assert said(first) == "building"
        with builder(path, notes) as second:
            whom = f"another run (process {first.pid})"
            assert said(second) == f"waiting for {whom}, which builds the image k ..."
            assert first.communicate("\n", timeout=DEADLINE)[0] == "whole\n"
            assert second.communicate(timeout=DEADLINE)[0].endswith("whole\n")
    assert notes.read_text() == "built\n"


def test_a_build_that_was_killed_is_never_seen_and_removed_by_the_next(path: Path, tmp_path: Path) -> None:
    with builder(path, tmp_path / "notes") as process:
        assert said(process) == "building"
        process.send_signal(signal.SIGKILL)
    assert len(left_in(path)) == 1
    store = Store(path, progress=silent())
    assert store.entry("images", "k") is None
    entry = store.provide("images", "k", "image k", whole)
    assert left_in(path) == ["k"]
    assert sorted(file.name for file in entry.iterdir()) == ["built", "disk", "manifest.json", "used"]


def test_whoever_waits_is_told_of_the_one_that_took_over(path: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with builder(path, notes) as first:
        assert said(first) == "building"
        with builder(path, notes) as second, builder(path, notes) as third:
            for waiting in (second, third):
                assert f"(process {first.pid})" in said(waiting)
            first.send_signal(signal.SIGKILL)
            outputs = {}
            for process in (second, third):
                line = said(process)
                assert line.startswith(f"waiting for another run (process {first.pid})")  # ... done after
                outputs[process] = said(process)
            successor, other = sorted(outputs, key=lambda process: outputs[process] != "building")
            assert outputs[successor] == "building"
            assert outputs[other].startswith(f"waiting for another run (process {successor.pid})")
            assert successor.communicate("\n", timeout=DEADLINE)[0].endswith("whole\n")
            assert other.communicate(timeout=DEADLINE)[0].endswith("whole\n")
    assert notes.read_text() == "built\n" * 2
    assert not list((path / "locks").glob("*.who"))


def test_with_refresh_what_was_built_since_the_run_began_is_new_enough(path: Path) -> None:
    builds: list[Path] = []

    def build(draft: Path) -> None:
        builds.append(draft)
        whole(draft)

    Store(path, progress=silent()).provide("states", "k", "state k", build)
    os.utime(path / "states" / "k" / "built", (1000.0, 1000.0))
    since = LockOwner(worker="gw0", run="r", since=2000.0)
    for _ in range(2):  # two workers of one run
        Store(path, progress=silent(), refresh=True, lock_owner=since).provide("states", "k", "state k", build)
    assert len(builds) == 2
    Store(path, progress=silent(), lock_owner=since).provide("states", "k", "state k", build, rebuild=True)
    assert len(builds) == 2
    later = LockOwner(since=time.time() + 10)
    Store(path, progress=silent(), refresh=True, lock_owner=later).provide("states", "k", "state k", build)
    assert len(builds) == 3


def test_the_last_run_that_leaves_an_entry_is_told_that_it_is(path: Path) -> None:
    stores = [Store(path, progress=silent()) for _ in range(2)]
    locks = [FileLock(path / "runs" / f"{number}.lock") for number in range(2)]
    for number, (store, lock) in enumerate(zip(stores, locks, strict=True)):
        lock.acquire()
        store.pins.run = path / "runs" / str(number)
        store.pins.run.mkdir()
        store.provide("states", "k", "state k", whole)
    name = EntryName(kind="states", key="k")
    assert [store.unpin(name) for store in stores] == [False, True]
    for lock in locks:
        lock.release()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (LockOwner(worker="gw1", run="r", process=47), "worker gw1 (process 47)"),
        (LockOwner(worker="gw1", run="s", process=47), "worker gw1 of another run (process 47)"),
        (LockOwner(process=47), "another run (process 47)"),
    ],
)
def test_who_builds_is_named(tmp_path: Path, other: LockOwner, words: str) -> None:
    other.sign(tmp_path / "who")
    assert LockOwner(worker="gw0", run="r").describe_owner(tmp_path / "who") == words


def test_who_left_no_name_is_another_run(tmp_path: Path) -> None:
    (tmp_path / "half").write_text("{")
    assert (
        LockOwner().describe_owner(tmp_path / "half")
        == LockOwner().describe_owner(tmp_path / "none")
        == "another run"
    )


def test_drafts_of_other_entries_are_left_alone(store: Store, path: Path) -> None:
    other = path / "images" / ".other.abc"
    other.mkdir()
    store.provide("images", "k", "image k", whole)
    assert left_in(path) == [".other.abc", "k"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_build_without_space_says_what_is_full_and_leaves_nothing(
    store: Store, path: Path, number: int
) -> None:
    def fill(draft: Path) -> None:
        (draft / "begun").write_text("half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(
        StoreFull, match=rf"not enough space for the image k in the store {path} \(\d+ MiB free\)"
    ):
        store.provide("images", "k", "image k", fill)
    assert left_in(path) == []


def test_others_cannot_read_the_store(store: Store, path: Path) -> None:
    entry = store.provide("images", "k", "image k", whole)
    for directory in (path, path / "images", store.runs, entry):
        assert directory.stat().st_mode & 0o777 == 0o700


def test_a_store_is_opened_again(store: Store, path: Path) -> None:
    store.provide("images", "k", "image k", whole)
    assert Store(path, progress=silent()).entry("images", "k") is not None


def test_a_store_of_another_format_is_left_alone(store: Store, path: Path) -> None:
    store.provide("images", "k", "image k", whole)
    (path / "format").write_text("0\n")
    with pytest.raises(StoreFormat, match="has format 0") as caught:
        Store(path, progress=silent())
    assert "does not change it" in str(caught.value)
    assert left_in(path) == ["k"]


def test_a_directory_that_cannot_be_used_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--vmsnap-store"):
        Store(tmp_path / "file" / "store", progress=silent())
