"""What another store made is somebody else's: it names no file outside of what it was built on."""

from __future__ import annotations

import hashlib
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.errors import StoreDamaged
from pytest_vmsnap.image.checksum import Checksum
from pytest_vmsnap.progress import silent
from pytest_vmsnap.states.acceptance import acceptance
from pytest_vmsnap.states.entries import origin_of
from pytest_vmsnap.store import EntryName, Store

from .saved_state import IMAGE, qcow2, state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "store", progress=silent())
    found.provide("images", IMAGE.key, "image", lambda draft: qcow2(draft / "disk.qcow2"))
    return found


def accept(store: Store, draft: Path, needs: tuple[EntryName, ...] = (IMAGE,)) -> None:
    acceptance(store, project=store.path / "project")(EntryName(kind="states", key="s"), needs, draft)


def changed(draft: Path, change: Callable[[dict[str, Any]], None]) -> None:
    meta = json.loads((draft / "meta.json").read_text())
    change(meta)
    (draft / "meta.json").write_text(json.dumps(meta))


def test_a_sound_state_becomes_one_of_this_project(store: Store) -> None:
    draft = state(store)
    accept(store, draft)
    assert json.loads((draft / "meta.json").read_text())["origin"]["project"] == str(store.path / "project")


def test_a_state_whose_metadata_has_the_earlier_name_of_its_key_parts_is_accepted(store: Store) -> None:
    draft = state(store)
    changed(draft, lambda meta: meta["origin"].update(outline={"spec.memory": "512"}))
    accept(store, draft)
    assert origin_of(draft).key_parts == {"spec.memory": "512"}


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
    check = acceptance(store, project=tmp_path)
    with pytest.raises(StoreDamaged, match="refers to a file outside"):
        check(EntryName(kind="images", key="i"), (), draft)


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
        (lambda meta: meta.update(origin=["base"]), UNREADABLE),
        (lambda meta: meta.update(origin="base"), UNREADABLE),
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
    check = acceptance(store, project=tmp_path)
    check(EntryName(kind="images", key=checksum.key), (), draft)
    (draft / "disk").write_bytes(b"another")
    with pytest.raises(StoreDamaged, match="not the image with the checksum"):
        check(EntryName(kind="images", key=checksum.key), (), draft)
    (draft / "meta.json").write_text(json.dumps({"sha256": hashlib.sha256(b"another").hexdigest()}))
    with pytest.raises(StoreDamaged, match="not the image with the checksum"):
        check(EntryName(kind="images", key=checksum.key), (), draft)


def test_a_state_on_an_image_that_it_does_not_need_is_refused(store: Store) -> None:
    with pytest.raises(StoreDamaged, match="outside of what it was built on"):
        accept(store, state(store), needs=())
