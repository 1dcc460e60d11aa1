"""What a registry returns is somebody else's: it names no file outside of what it was built on."""

from __future__ import annotations

import hashlib
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.errors import StoreDamaged, StoreError
from pytest_vmsnap.image.checksum import Checksum
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
        "image": {
            "key": "image1",
            "origin": "debian:trixie",
            "format": "qcow2",
            "disk": "images/image1/disk.qcow2",
            "kernel": None,
            "initrd": None,
            "modules": None,
        },
        "disks": ["disk0.qcow2"],
        "abilities": {"file_address": False, "sealed_memory": False},
        "guest": {"reseeder": "kernel", "boot": "", "shells": [1, 2]},
        "bare_devices": False,
        "has_lan": False,
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


OUTSIDE, LACKS, UNREADABLE = "outside of what it was built on", "it lacks its file", "this version can read"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda meta: meta["image"].update(initrd="/etc/shadow"), OUTSIDE),
        (lambda meta: meta["image"].update(kernel="../secret"), OUTSIDE),
        (lambda meta: meta.update(disks=["../../../secret"]), LACKS),
        (lambda meta: meta.update(disks=["missing.qcow2"]), LACKS),
        (lambda meta: meta["spec"].update(memory=256), "its memory has less than 256 MiB"),
        (lambda meta: meta["spec"].update(unknown=1), UNREADABLE),
        (lambda meta: meta["spec"].update(memory=1), UNREADABLE),
        (lambda meta: meta["origin"].update(unknown=1), UNREADABLE),
        (lambda meta: meta["origin"].update(made_from={"QEMU": 7}), UNREADABLE),
        (lambda meta: meta.update(full="yes"), UNREADABLE),
        (lambda meta: meta.pop("spec"), UNREADABLE),
        (lambda meta: meta.pop("abilities"), UNREADABLE),
        (lambda meta: meta.update(full=False, layers=["../pages"]), LACKS),
        (lambda meta: meta.update(full=False, layers=["pages"]), "its memory has more than 128 MiB"),
        (lambda meta: meta.update(full=False, layers=[]), "based on a state that it does not need"),
        (lambda meta: meta.update(members={"one": "unknown"}, faults=[]), "machines that it does not need"),
        (lambda meta: meta.update(members={"../one": "unknown"}, faults=[]), UNREADABLE),
    ],
)
def test_metadata_that_leads_elsewhere_is_refused(
    store: Store, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    draft = state(store)
    (draft / "pages").mkdir()
    (draft / "pages" / f"{127 << 20:012x}").write_bytes(bytes(2 << 20))
    changed(draft, change)
    with pytest.raises(StoreDamaged, match=said):
        accept(store, draft)


def test_a_layer_of_memory_is_accepted(store: Store) -> None:
    parent = EntryName(kind="states", key="parent")
    store.provide("states", parent.key, "state", lambda draft: (draft / "ram").touch(), depends_on=[IMAGE])
    draft = state(store)
    (draft / "pages").mkdir()
    (draft / "pages" / f"{126 << 20:012x}").write_bytes(bytes(2 << 20))

    def layered(meta: dict[str, Any]) -> None:
        meta.update(full=False, layers=["pages"], on_parent=True)
        meta["origin"]["parent"] = parent.key

    changed(draft, layered)
    accept(store, draft, needs=(parent,))  # the image is what the parent needs


def test_a_disk_that_no_metadata_names_is_checked_too(store: Store) -> None:
    draft = state(store)
    qcow2(draft / "hidden", "-F", "raw", "-b", "/etc/hostname")
    with pytest.raises(StoreDamaged, match="hidden refers to a file outside"):
        accept(store, draft)


def test_a_downloaded_image_has_the_checksum_of_its_key(store: Store, tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    draft.mkdir()
    (draft / "disk").write_bytes(b"content")
    checksum = Checksum("sha256", hashlib.sha256(b"content").hexdigest())
    (draft / "meta.json").write_text(json.dumps({"sha256": checksum.digest}))
    registry: Any = None
    source = registry_source(store, registry, root=tmp_path, progress=silent(), pinned=None)
    source._accept(EntryName(kind="images", key=checksum.key), (), draft)
    (draft / "disk").write_bytes(b"another")
    with pytest.raises(StoreDamaged, match="not the image with the checksum"):
        source._accept(EntryName(kind="images", key=checksum.key), (), draft)
    (draft / "meta.json").write_text(json.dumps({"sha256": hashlib.sha256(b"another").hexdigest()}))
    with pytest.raises(StoreDamaged, match="not the image with the checksum"):
        source._accept(EntryName(kind="images", key=checksum.key), (), draft)


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
    assert differences(one, other) == ["cpu is maximum, not EPYC", "prepare.conftest.f differs"]
    assert differences({}, {"qemu": "7.2"}) == ["qemu is new"]


def test_a_constant_of_the_project_is_not_shown() -> None:
    """It may be a password, and goes into the registry and into logs."""
    found = outline({"source": {"conftest.TOKEN": "'hunter2'"}, "spec": {"image": "https://me:hunter2@host/i"}})
    assert "hunter2" not in str(found)
    other = outline({"source": {"conftest.TOKEN": "'hunter3'"}, "spec": {"image": "https://me:hunter2@host/i"}})
    assert differences(found, other) == ["source.conftest.TOKEN differs"]
