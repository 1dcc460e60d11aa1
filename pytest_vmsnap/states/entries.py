"""A snapshot as an entry of the store: its files, and what is to be known of them."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import StoreDamaged
from pytest_vmsnap.fork import Abilities, FullMemory, LayeredMemory, Snapshot, rebase
from pytest_vmsnap.model import GuestNotes, Image, MachineSpec
from pytest_vmsnap.store import Name, closure, expect_whole, read_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.fork import SavedMemory
    from pytest_vmsnap.host import Facts, Host
    from pytest_vmsnap.store import Kind, Store

META = "meta.json"
RAM, PAGES, DEVICES = "ram", "pages", "device-state"
KIND: Kind = "states"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a snapshot in the store is of: the state's `name`, the `project` (its root), its parent's key if it
    has one.

    `made_from` are the versions and words that tell a person where it would fit; `created` is in seconds since
    the epoch.
    """

    name: str
    project: str
    parent: str | None
    made_from: dict[str, str]
    created: float


def seal(store: Store, draft: Path, snapshot: Snapshot, origin: Origin) -> None:
    """Make of what was saved in the directory `draft` of the store an entry that can be moved with it."""
    for disk in snapshot.disks:
        rebase(disk, within=store.path)
    meta = {
        "origin": dataclasses.asdict(origin),
        "spec": snapshot.spec.as_dict(),
        "image": _image_as_dict(store, snapshot.image),
        "disks": [disk.name for disk in snapshot.disks],
        "abilities": dataclasses.asdict(snapshot.abilities),
        "guest": dataclasses.asdict(snapshot.guest),
        "bare_devices": snapshot.bare_devices,
        **_memory_as_dict(snapshot.memory),
    }
    (draft / META).write_text(json.dumps(meta, indent=1) + "\n")


def origin_of(entry: Path) -> Origin:
    """What the snapshot in the directory `entry` is of; raises `StoreDamaged`."""
    return Origin(**_meta(entry)["origin"])


def made_from(facts: Facts, image: str) -> dict[str, str]:
    """What tells where a snapshot that is made on this host, from `image`, would fit."""
    return {
        "image": image,
        "QEMU": facts.qemu_version,
        "libvirt": facts.libvirt_version,
        "accelerator": facts.accelerator.name,
        "CPU": facts.guest_cpu,
    }


def is_full(entry: Path) -> bool:
    """Whether the snapshot's memory needs no other; raises `StoreDamaged`."""
    return bool(_meta(entry)["full"])


def load(store: Store, entry: Path) -> Snapshot:
    """The snapshot in the directory `entry` of the store; raises `StoreDamaged` where it is none."""
    meta = _meta(entry)
    try:
        spec = MachineSpec(**meta["spec"])
        return Snapshot(
            directory=entry,
            spec=spec,
            image=_image_of(store, meta["image"]),
            disks=tuple(entry / name for name in meta["disks"]),
            memory=_memory(store, entry, meta, spec.memory << 20),
            devices=entry / DEVICES,
            abilities=Abilities(**meta["abilities"]),
            guest=GuestNotes(**meta["guest"] | {"shells": tuple(meta["guest"]["shells"])}),
            bare_devices=meta["bare_devices"],
        )
    except (KeyError, TypeError) as error:
        raise StoreDamaged(f"{entry / META} cannot be understood: {error!r}") from error


def use(store: Store, host: Host, name: Name) -> Snapshot:
    """The snapshot in the entry `name` of the store, for machines of `host`'s run, which claims it.

    Raises `StoreDamaged` where it is not what was saved.
    """
    for each in closure(store.path, name):
        store.claims.add(each)
        expect_whole(store.place(each))
        host.let_through(store.place(each) / META)
    snapshot = load(store, store.place(name))
    open_to(host, snapshot)
    return snapshot


def open_to(host: Host, snapshot: Snapshot) -> None:
    """Let QEMU reach the files of a snapshot."""
    for path in (*snapshot.disks, snapshot.devices):
        host.reachable(path)


def _memory_as_dict(memory: SavedMemory) -> dict[str, Any]:
    if not isinstance(memory, LayeredMemory):
        return {"full": True}
    layers = [layer.name for layer in memory.layers]
    return {"full": False, "layers": layers, "on_parent": memory.below is not None}


def _memory(store: Store, entry: Path, meta: dict[str, Any], size: int) -> SavedMemory:
    if meta["full"]:
        return FullMemory(fingerprint=read_manifest(entry)[RAM])
    origin = Origin(**meta["origin"])
    parent = origin.parent if meta.get("on_parent", True) else None
    return LayeredMemory(
        below=load(store, store.place(Name(kind=KIND, key=parent))).memory if parent else None,
        layers=tuple(entry / name for name in meta.get("layers", [PAGES])),
        size=size,
        provide=lambda build: store.provide(
            "memory",
            entry.name,
            f"memory of the state {origin.name}",
            build,
            made_on=[Name(kind=KIND, key=entry.name)],
        ),
    )


def _meta(entry: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((entry / META).read_text())
    except (OSError, ValueError) as error:
        raise StoreDamaged(f"{entry / META} cannot be read: {error}") from error
    return found


def _image_as_dict(store: Store, image: Image) -> dict[str, Any]:
    found = dataclasses.asdict(image)
    for name in ("disk", "kernel", "initrd"):
        if path := found[name]:
            found[name] = os.path.relpath(path, store.path) if path.is_relative_to(store.path) else str(path)
    return found


def _image_of(store: Store, found: dict[str, Any]) -> Image:
    paths = {name: store.path / found[name] for name in ("disk", "kernel", "initrd") if found[name]}
    return Image(**found | paths)


def origin_now(name: str, *, project: Path, parent: str | None, made_from: dict[str, str]) -> Origin:
    """The origin of a snapshot that is made now."""
    return Origin(name=name, project=str(project), parent=parent, made_from=made_from, created=time.time())
