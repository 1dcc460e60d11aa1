"""A snapshot as one file: what goes in comes out, and what is not what was written is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.errors import StoreDamaged, StoreError, StoreFormat
from pytest_vmsnap.fork import Capabilities, FullMemory, LayeredMemory, SavedMemory, Snapshot
from pytest_vmsnap.fork.files import empty_disk, overlay
from pytest_vmsnap.model import GuestNotes, Image, MachineSpec
from pytest_vmsnap.progress import silent
from pytest_vmsnap.states import entries, export, extract_disk, import_, load, origin_of
from pytest_vmsnap.store import EntryName, Store, fingerprint

if sys.version_info >= (3, 14):
    import tarfile
else:
    from backports.zstd import tarfile

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = {"QEMU": "10.0.2", "accelerator": "kvm", "CPU": "a", "libvirt": "11.3", "image": "x"}
SIZE = 32 << 20


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", progress=silent())


@pytest.fixture
def entry(store: Store) -> Path:
    """A state whose disk is a layer on an image, and whose memory is pages on its parent's."""
    image = store.provide("images", "image", "image", lambda draft: write_disk(draft / "disk.qcow2", b"\x11"))
    parent = EntryName(kind="states", key="parent")

    def base(draft: Path) -> None:
        (draft / "ram").write_bytes(bytes(SIZE - 4096) + b"p" * 4096)
        save(store, draft, image, name="base", parent=None)

    def child(draft: Path) -> None:
        (draft / "pages").mkdir()
        (draft / "pages" / f"{4096:012x}").write_bytes(b"c" * 8192)
        save(store, draft, image, name="child", parent="parent")

    store.provide("states", "parent", "state base", base, depends_on=[EntryName(kind="images", key="image")])
    return store.provide("states", "child", "state child", child, depends_on=[parent])


def write_disk(path: Path, pattern: bytes) -> None:
    empty_disk(path, size_mib=8)
    subprocess.run(
        ["qemu-io", "-c", f"write -P {pattern[0]} 0 64k", str(path)], check=True, capture_output=True
    )


def save(store: Store, draft: Path, image: Path, *, name: str, parent: str | None) -> None:
    disk = overlay(draft / "disk0.qcow2", backing=image / "disk.qcow2", backing_format="qcow2")
    (draft / "device-state").write_bytes(name.encode())
    if parent is None:
        memory: SavedMemory = FullMemory(fingerprint=fingerprint(draft / "ram"))
    else:
        below = entries.load(store, store.place(EntryName(kind="states", key=parent))).memory
        pages = draft / "pages"
        memory = LayeredMemory(below=below, layers=(pages,), size=0, provide=lambda _: draft)
    snapshot = Snapshot(
        directory=draft,
        spec=MachineSpec(image="debian:trixie", memory=32),
        image=Image(key="image", origin="debian:trixie", disk=image / "disk.qcow2", format="qcow2"),
        disks=(disk,),
        memory=memory,
        devices=draft / "device-state",
        capabilities=Capabilities(file_address=True, sealed_memory=True),
        guest=GuestNotes(reseeder="kernel", boot="b", shells=(1, 2)),
    )
    origin = entries.origin_now(name, project=Path("/project"), parent=parent, made_from=HERE)
    entries.seal(store, draft, snapshot, origin)


def pattern_of(disk: Path) -> bytes:
    raw = disk.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(disk), str(raw)], check=True)
    return raw.read_bytes()[:1]


def test_what_was_exported_is_imported_whole_and_needs_nothing_else(
    store: Store, entry: Path, tmp_path: Path
) -> None:
    before = load(store, entry).memory.file().path.read_bytes()
    assert before[4096:12288] == b"c" * 8192
    assert before[-4096:] == b"p" * 4096
    export(store, entry, tmp_path / "file")
    other = Store(tmp_path / "other", progress=silent())
    imported = import_(other, tmp_path / "file", here=HERE)
    found = load(other, imported)
    assert found.memory.file().path.read_bytes() == before
    assert found.memory.file().path.stat().st_blocks * 512 < 1 << 20  # holes are holes again
    assert found.devices.read_bytes() == b"child"
    assert pattern_of(found.disks[0]) == b"\x11"
    assert (imported.name, origin_of(imported).name, origin_of(imported).parent) == ("child", "child", None)
    assert (found.spec.memory, found.guest.shells) == (32, (1, 2))


def test_a_file_that_is_there_is_not_overwritten(store: Store, entry: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for write in (lambda path: export(store, entry, path), lambda path: extract_disk(tmp_path / "none", path)):
        with pytest.raises(StoreError, match="already exists"):
            write(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["QEMU", "accelerator", "CPU"])
def test_memory_of_another_kind_of_host_is_refused_and_its_disk_is_offered(
    store: Store, entry: Path, tmp_path: Path, name: str
) -> None:
    export(store, entry, tmp_path / "file")
    with pytest.raises(StoreError, match=f"its {name} is {HERE[name]}, this host's is other") as caught:
        import_(store, tmp_path / "file", here=HERE | {name: "other"})
    assert "--disk-only" in str(caught.value)
    extract_disk(tmp_path / "file", tmp_path / "disk.qcow2")
    assert pattern_of(tmp_path / "disk.qcow2") == b"\x11"


@pytest.fixture
def rewritten(store: Store, entry: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """`rewritten(change)`: an exported file whose members, by name, `change` has changed."""

    def rewrite(change: Callable[[dict[str, Any]], None]) -> Path:
        export(store, entry, tmp_path / "file")
        with tarfile.open(tmp_path / "file", "r:zst") as archive:
            members = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
        members["snapshot.json"] = json.loads(members["snapshot.json"])
        change(members)
        members["snapshot.json"] = json.dumps(members["snapshot.json"]).encode()
        import io

        with tarfile.open(tmp_path / "changed", "w:zst") as archive:
            for name, data in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        store.remove(EntryName(kind="states", key="child"))
        return tmp_path / "changed"

    return rewrite


def other_bytes(members: dict[str, Any]) -> None:
    members["device-state"] = b"CHILD"


def fewer_bytes(members: dict[str, Any]) -> None:
    members["device-state"] = b"c"


def no_memory(members: dict[str, Any]) -> None:
    del members["ram"]


def outside(members: dict[str, Any]) -> None:
    members["../evil"] = b""
    members["snapshot.json"]["files"]["../evil"] = {"size": 0, "sha256": ""}


def strange_key(members: dict[str, Any]) -> None:
    members["snapshot.json"]["key"] = "../../evil"


FAULTS = [
    (other_bytes, "content of device-state"),
    (fewer_bytes, "device-state in .* is not the file that was exported"),
    (no_memory, "lacks ram"),
    (outside, "are not those of a snapshot"),
    (strange_key, "an invalid key"),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_a_file_that_is_not_what_was_written_is_refused(
    store: Store,
    rewritten: Callable[[Callable[[dict[str, Any]], None]], Path],
    fault: Callable[[dict[str, Any]], None],
    words: str,
) -> None:
    path = rewritten(fault)
    with pytest.raises(StoreDamaged, match=words):
        import_(store, path, here=HERE)
    assert store.entry("states", "child") is None


def test_a_disk_that_refers_to_a_file_outside_is_refused(
    store: Store, rewritten: Callable[[Callable[[dict[str, Any]], None]], Path], tmp_path: Path
) -> None:
    base = empty_disk(tmp_path / "base.qcow2", size_mib=8)
    evil = overlay(tmp_path / "evil.qcow2", backing=base, backing_format="qcow2").read_bytes()

    def change(members: dict[str, Any]) -> None:
        import hashlib

        members["disk0.qcow2"] = evil
        noted = {"size": len(evil), "sha256": hashlib.sha256(evil).hexdigest()}
        members["snapshot.json"]["files"]["disk0.qcow2"] = noted

    path = rewritten(change)
    with pytest.raises(StoreDamaged, match="refers to a file outside of it"):
        import_(store, path, here=HERE)
    with pytest.raises(StoreDamaged, match="refers to a file outside of it"):
        extract_disk(path, tmp_path / "out.qcow2")
    assert not (tmp_path / "out.qcow2").exists()


def test_another_format_is_left_alone(
    store: Store, rewritten: Callable[[Callable[[dict[str, Any]], None]], Path]
) -> None:
    path = rewritten(lambda members: members["snapshot.json"].update(format=2))
    with pytest.raises(StoreFormat, match="format 2; this version of pytest-vmsnap reads format 1"):
        import_(store, path, here=HERE)


@pytest.mark.parametrize("content", [b"", b"no archive", bytes(10000)])
def test_what_is_no_snapshot_at_all_is_refused(store: Store, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(StoreDamaged, match="is not a file that `vmsnap export` wrote"):
        import_(store, tmp_path / "file", here=HERE)
    with pytest.raises(StoreError, match="cannot be read"):
        import_(store, tmp_path / "nowhere", here=HERE)
