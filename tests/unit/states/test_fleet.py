"""What a registry returns is somebody else's: it names no file outside of what it was built on."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.errors import StoreDamaged, StoreError
from pytest_vmsnap.model import MachineSpec
from pytest_vmsnap.progress import silent
from pytest_vmsnap.states import differences, read_lock, registry_source, write_lock
from pytest_vmsnap.states.cache_key import outline
from pytest_vmsnap.store import EntryName, Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGE = EntryName(kind="images", key="image1")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "store", progress=silent())
    found.provide("images", IMAGE.key, "image", lambda draft: qcow2(draft / "disk.qcow2"))
    return found


def qcow2(path: Path, *options: str) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path, "1M"], check=True)


def state(store: Store) -> Path:
    """A directory as a pulled state has it, with an overlay on the image."""
    draft = store.path / "states" / ".draft"
    draft.mkdir()
    image = store.place(IMAGE) / "disk.qcow2"
    qcow2(draft / "disk0.qcow2", "-F", "qcow2", "-b", str(image))
    subprocess.run(
        [
            "qemu-img",
            "rebase",
            "-u",
            "-F",
            "qcow2",
            "-b",
            "../../images/image1/disk.qcow2",
            draft / "disk0.qcow2",
        ],
        check=True,
    )
    with (draft / "ram").open("wb") as file:
        file.truncate(128 << 20)
    (draft / "device-state").write_bytes(b"state")
    meta = {
        "origin": {"name": "base", "project": "/elsewhere", "parent": None, "made_from": {}, "created": 0.0},
        "spec": MachineSpec(memory=128).as_dict(),
        "image": {"disk": "images/image1/disk.qcow2", "kernel": None, "initrd": None, "modules": None},
        "disks": ["disk0.qcow2"],
        "full": True,
    }
    (draft / "meta.json").write_text(json.dumps(meta))
    return draft


def accept(store: Store, draft: Path, needs: tuple[EntryName, ...] = (IMAGE,)) -> None:
    registry: Any = None
    source = registry_source(store, registry, root=store.path / "project", progress=silent(), pinned=None)
    source._accept(EntryName(kind="states", key="s"), needs, draft)


def changed(draft: Path, change: Callable[[dict[str, Any]], None]) -> None:
    meta = json.loads((draft / "meta.json").read_text())
    change(meta)
    (draft / "meta.json").write_text(json.dumps(meta))


def test_a_sound_state_becomes_one_of_this_project(store: Store) -> None:
    draft = state(store)
    accept(store, draft)
    assert json.loads((draft / "meta.json").read_text())["origin"]["project"] == str(store.path / "project")


@pytest.mark.parametrize("written", ["/etc/passwd", "../../images/image1/../../../secret", "nbd://host/export"])
def test_a_disk_with_a_backing_file_outside_is_refused(store: Store, written: str) -> None:
    draft = state(store)
    command = ["qemu-img", "rebase", "-u", "-F", "raw", "-b", written, str(draft / "disk0.qcow2")]
    subprocess.run(command, check=True)
    with pytest.raises(StoreDamaged, match="refers to a file outside"):
        accept(store, draft)


def test_a_disk_with_a_data_file_outside_is_refused(store: Store, tmp_path: Path) -> None:
    draft = state(store)
    (draft / "disk0.qcow2").unlink()
    qcow2(draft / "disk0.qcow2", "-o", f"data_file={tmp_path / 'data'}")
    with pytest.raises(StoreDamaged, match="refers to a file outside"):
        accept(store, draft)


def test_an_image_that_refers_to_a_file_is_refused(store: Store, tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    draft.mkdir()
    qcow2(draft / "disk.qcow2", "-F", "raw", "-b", "/etc/hostname")
    registry: Any = None
    source = registry_source(store, registry, root=tmp_path, progress=silent(), pinned=None)
    with pytest.raises(StoreDamaged, match="refers to a file outside"):
        source._accept(EntryName(kind="images", key="i"), (), draft)


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta["image"].update(initrd="/etc/shadow"),
        lambda meta: meta["image"].update(kernel="../secret"),
        lambda meta: meta.update(disks=["../../../secret"]),
        lambda meta: meta.update(disks=["missing.qcow2"]),
        lambda meta: meta["spec"].update(memory=256),
        lambda meta: meta["spec"].update(unknown=1),
        lambda meta: meta.pop("spec"),
        lambda meta: meta.update(full=False, layers=["../pages"]),
        lambda meta: (meta.update(full=False, layers=[]), meta["origin"].update(parent="other")),
        lambda meta: meta.update(members={"one": "unknown"}),
    ],
)
def test_metadata_that_leads_elsewhere_is_refused(
    store: Store, change: Callable[[dict[str, Any]], None]
) -> None:
    draft = state(store)
    changed(draft, change)
    with pytest.raises(StoreDamaged):
        accept(store, draft)


def test_a_state_on_an_image_that_it_does_not_need_is_refused(store: Store) -> None:
    with pytest.raises(StoreDamaged, match="outside of what it was built on"):
        accept(store, state(store), needs=())


def test_the_lock_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_lock(tmp_path) is None
    pins = {"states-one": f"sha256:{'1' * 64}", "images-two": f"sha256:{'2' * 64}"}
    path = write_lock(tmp_path, pins)
    assert read_lock(tmp_path) == pins
    assert path.stat().st_mode & 0o444 == 0o444


@pytest.mark.parametrize("text", ["[", "", "[registry]\nx = 'sha1:0'\n", "registry = 5"])
def test_a_lock_file_that_is_not_valid_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "vmsnap.lock").write_text(text)
    with pytest.raises(StoreError, match=r"vmsnap\.lock"):
        read_lock(tmp_path)


def test_what_differs_is_named_by_its_part() -> None:
    one = outline({"spec": {"memory": 512}, "cpu": "maximum", "prepare": [{"conftest.f": "def f():\n  one"}]})
    other = outline({"spec": {"memory": 512}, "cpu": "EPYC", "prepare": [{"conftest.f": "def f():\n  two"}]})
    assert differences(one, one) == []
    assert differences(one, other) == ["cpu is maximum there, EPYC here", "prepare.conftest.f differs"]
    assert differences({}, {"qemu": "7.2"}) == ["qemu is only here"]
