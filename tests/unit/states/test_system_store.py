"""States that all users of a host share: their files are copied, if only their owner can write."""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import SpecError, StoreError
from pytest_vmsnap.progress import Progress, silent
from pytest_vmsnap.states import SystemStore, expect_own_store, share_state, system_store_finding
from pytest_vmsnap.store import EntryName, Store, checksum, closure, damage_of

from .saved_state import IMAGE, qcow2, state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STATE = EntryName(kind="states", key="state1")
PAGE = b"page" * 1024


class User:
    """A store of its own, with the system store at `path`; `said` are its lines, `built` counts its builds."""

    def __init__(self, path: Path, own: Path) -> None:
        self.said: list[str] = []
        self.built = 0
        progress = Progress(self.said.append)
        self.store = Store(own, progress=progress)
        source = SystemStore(path, self.store, project=own / "project", progress=progress)
        self.store.sources = [source]

    def provide(self) -> Path:
        def build(draft: Path) -> None:
            self.built += 1
            (draft / "device-state").write_bytes(b"built here")

        return self.store.provide("states", STATE.key, "state base", build)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A system store with a state and its image."""
    store = Store(tmp_path / "admin", progress=silent())
    store.provide("images", IMAGE.key, "image", lambda draft: qcow2(draft / "disk.qcow2"))

    def build(draft: Path) -> None:
        made = state(store)
        with (made / "ram").open("r+b") as ram:
            ram.write(PAGE)
        for path in made.iterdir():
            path.rename(draft / path.name)
        (draft / "pages").mkdir()
        (draft / "pages" / "000000001000").write_bytes(PAGE)
        made.rmdir()

    store.provide("states", STATE.key, "state base", build, depends_on=[IMAGE])
    path = tmp_path / "system"
    assert share_state(store, STATE, path, progress=silent())
    assert not share_state(store, STATE, path, progress=silent())
    return path


def contents(directory: Path) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in directory.rglob("*") if path.is_file()
    }


def sealed(shared: Path, sealed: bool) -> None:
    """Say in the shared state whether QEMU opens its memory only for reading."""
    meta = shared / "states" / STATE.key / "meta.json"
    text = meta.read_text().replace('"sealed_memory": false', f'"sealed_memory": {str(sealed).lower()}')
    meta.chmod(0o644)
    meta.write_text(text)
    manifest = meta.with_name("manifest.json")
    noted = json.loads(manifest.read_text())
    found = meta.stat()
    noted["meta.json"] = (found.st_size, found.st_mtime_ns, checksum(meta))
    manifest.chmod(0o644)
    manifest.write_text(json.dumps(noted))


def test_all_users_can_read_what_is_shared_and_only_its_owner_can_write(shared: Path) -> None:
    for path in (shared, *(shared / "states").rglob("*"), *(shared / "images").rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o444), path
    assert (shared / "locks").stat().st_mode & 0o777 == 0o700


def test_a_shared_state_is_copied_and_nothing_is_written_where_it_is(shared: Path, tmp_path: Path) -> None:
    before = contents(shared)
    user = User(shared, tmp_path / "own")
    entry = user.provide()
    assert user.built == 0
    assert contents(shared) == before
    assert user.store.fetched == {STATE: "system store", IMAGE: "system store"}
    assert (entry / "pages" / "000000001000").read_bytes() == PAGE
    assert (entry / "ram").read_bytes()[: len(PAGE)] == PAGE
    assert (entry / "ram").stat().st_blocks * 512 < 1 << 20 < (entry / "ram").stat().st_size  # holes are holes
    assert closure(user.store.path, STATE) == [STATE, IMAGE]
    assert damage_of(user.store, STATE) == []
    origin = json.loads((entry / "meta.json").read_text())["origin"]
    assert origin["project"] == str(tmp_path / "own" / "project")


@pytest.mark.parametrize("read_only", [True, False])
def test_only_memory_that_qemu_opens_for_writing_is_writable(
    shared: Path, tmp_path: Path, read_only: bool
) -> None:
    sealed(shared, read_only)
    entry = User(shared, tmp_path / "own").provide()
    modes = {path.name: path.stat().st_mode & 0o777 for path in entry.iterdir()}
    assert modes["ram"] == (0o400 if read_only else 0o600)
    assert modes["disk0.qcow2"] == modes["device-state"] == 0o400


def writable(entry: Path) -> None:
    (entry / "device-state").chmod(0o666)


def writable_directory(entry: Path) -> None:
    entry.parent.chmod(0o777)


def link(entry: Path) -> None:
    (entry / "device-state").unlink()
    (entry / "device-state").symlink_to("/etc/hostname")


def changed(entry: Path) -> None:
    (entry / "device-state").chmod(0o600)
    (entry / "device-state").write_bytes(b"stat3")


def added(entry: Path) -> None:
    (entry / "more").touch()


def unreadable(entry: Path) -> None:
    (entry / "manifest.json").unlink()


def without_image(entry: Path) -> None:
    image = entry.parents[1] / "images" / IMAGE.key
    image.rename(image.with_name(".gone"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (writable, "others than its owner can write to"),
        (writable_directory, "others than its owner can write to"),
        (link, "is a symbolic link"),
        (changed, "device-state is not what was shared"),
        (added, "its files are not those that were shared: more"),
        (unreadable, "cannot be read"),
        (without_image, "images/image1, which it was built on, is missing"),
    ],
)
def test_what_may_not_be_what_was_shared_is_said_and_built(
    shared: Path, tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    change(shared / "states" / STATE.key)
    user = User(shared, tmp_path / "own")
    entry = user.provide()
    assert user.built == 1
    assert (entry / "device-state").read_bytes() == b"built here"
    [said] = [line for line in user.said if "state base in the system store" in line]
    assert "is not used" in said
    assert re.search(reason, said), said


def test_what_belongs_to_somebody_else_is_not_used(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = User(shared, tmp_path / "own")
    entry = shared / "states" / STATE.key
    if os.geteuid() == 0:
        os.chown(entry, 12345, 12345)
    else:  # only root can give a file away; instead, this is somebody else
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    user.provide()
    assert user.built == 1
    assert any("belongs neither to root nor to you" in line for line in user.said)


def test_a_state_that_was_built_on_another_image_than_the_users_is_not_used(
    shared: Path, tmp_path: Path
) -> None:
    """Two builds of an image have the same key, and differ in what they contain."""
    own = Store(tmp_path / "own", progress=silent())

    def build(draft: Path) -> None:
        qcow2(draft / "disk.qcow2")
        with (draft / "disk.qcow2").open("ab") as disk:
            disk.write(PAGE)

    own.provide("images", IMAGE.key, "image", build)
    user = User(shared, tmp_path / "own")
    user.provide()
    assert user.built == 1
    assert any("was built on other content of images/image1 than is in" in line for line in user.said)


def test_a_state_of_another_image_than_the_shared_one_is_not_shared(shared: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "admin", progress=silent())
    image = shared / "images" / IMAGE.key
    manifest = image / "manifest.json"
    manifest.chmod(0o600)
    (image / "disk.qcow2").chmod(0o600)
    with (image / "disk.qcow2").open("ab") as disk:
        disk.write(PAGE)
    found = (image / "disk.qcow2").stat()
    noted = json.loads(manifest.read_text())
    noted["disk.qcow2"] = (found.st_size, found.st_mtime_ns, checksum(image / "disk.qcow2"))
    manifest.write_text(json.dumps(noted))
    with pytest.raises(StoreError, match="has other content of the image image1 than"):
        share_state(store, STATE, shared, progress=silent())


def test_a_state_outlives_its_removal_from_the_system_store(shared: Path, tmp_path: Path) -> None:
    User(shared, tmp_path / "own").provide()
    shutil.rmtree(shared)
    user = User(shared, tmp_path / "own")
    user.provide()
    assert (user.built, user.said) == (0, [])


def test_a_directory_above_that_others_can_write_to_is_not_trusted_unless_it_is_sticky(
    shared: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    user = User(shared, tmp_path / "own")
    user.provide()
    assert user.built == 1
    assert any(f"others than its owner can write to {tmp_path}" in line for line in user.said)
    tmp_path.chmod(0o1777)
    other = User(shared, tmp_path / "other")
    other.provide()
    assert other.built == 0
    tmp_path.chmod(0o700)


def test_a_run_does_not_write_to_the_system_store(shared: Path) -> None:
    expect_own_store(shared.with_name("own"), shared)
    expect_own_store(shared, None)
    with pytest.raises(SpecError, match="is the system store, which only `vmsnap share` adds to"):
        expect_own_store(shared / "states" / "..", shared)


def test_a_directory_that_only_its_owner_can_enter_is_said(tmp_path: Path) -> None:
    store = Store(tmp_path / "admin", progress=silent())
    store.provide("images", IMAGE.key, "image", lambda draft: qcow2(draft / "disk.qcow2"))
    (tmp_path / "system").mkdir(mode=0o700)
    said: list[str] = []
    assert share_state(store, IMAGE, tmp_path / "system", progress=Progress(said.append))
    assert f"only its owner can enter {tmp_path / 'system'}" in said[0]


def test_a_state_of_an_image_of_its_own_is_not_shared(tmp_path: Path) -> None:
    store = Store(tmp_path / "admin", progress=silent())
    store.provide("images", IMAGE.key, "image", lambda draft: qcow2(draft / "disk.qcow2"))

    def build(draft: Path) -> None:
        for path in state(store).iterdir():
            path.rename(draft / path.name)
        meta = json.loads((draft / "meta.json").read_text())
        meta["image"]["disk"] = "/home/me/disk.qcow2"
        (draft / "meta.json").write_text(json.dumps(meta))

    store.provide("states", STATE.key, "state base", build, depends_on=[IMAGE])
    with pytest.raises(StoreError, match=r"cannot be shared: it was made from /home/me/disk\.qcow2, a file"):
        share_state(store, STATE, tmp_path / "system", progress=silent())
    assert not (tmp_path / "system").exists()


def test_the_doctor_counts_what_is_shared_and_says_why_it_is_not_used(shared: Path, tmp_path: Path) -> None:
    assert system_store_finding(tmp_path / "none").found == f"{tmp_path / 'none'} does not exist"
    assert system_store_finding(shared).found == f"{shared}: 1 state"
    (shared / "images" / IMAGE.key).chmod(0o777)
    found = system_store_finding(shared)
    assert (found.status, "others than its owner can write to" in found.found) == ("warning", True)
    assert system_store_finding(tmp_path).status == "warning"  # it is no store
