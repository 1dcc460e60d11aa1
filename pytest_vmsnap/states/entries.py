"""Snapshots as entries of the store: their files and metadata."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import StoreDamaged
from pytest_vmsnap.fork import (
    Capabilities,
    ClusterSnapshot,
    FullMemory,
    LayeredMemory,
    Snapshot,
    backing_of,
    rebase,
)
from pytest_vmsnap.model import GuestNotes, Image, MachineSpec
from pytest_vmsnap.model.cluster import HOST_NAME
from pytest_vmsnap.network import FaultSpec
from pytest_vmsnap.store import EntryName, closure, expect_whole, read_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_vmsnap.fork import Saved, SavedMemory
    from pytest_vmsnap.host import Facts, Host
    from pytest_vmsnap.store import Kind, Store

META = "meta.json"
RAM, PAGES, DEVICES = "ram", "pages", "device-state"
KIND: Kind = "states"
FILES = ("disk", "kernel", "initrd", "modules")  # of an image
IMAGE_FOR_OTHERS = "use an image from an address or by a vendor's name, or debian:SUITE"  # a hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a snapshot in the store comes from: the state's `name`, the `project` (its root directory), and the
    key of the parent state, None without one.

    `made_from` names the image, and the versions and CPU that a host needs to load the snapshot; `created` is
    in seconds since the epoch. `key_parts` is what its key was made from (see `cache_key.key_parts`).
    """

    name: str
    project: str
    parent: str | None
    made_from: dict[str, str]
    created: float
    key_parts: dict[str, str] = field(default_factory=dict)


def seal(store: Store, draft: Path, snapshot: Snapshot, origin: Origin) -> None:
    """Turn the snapshot in the store's directory `draft` into an entry: write metadata, make paths relative."""
    for disk in snapshot.disks:
        rebase(disk, within=store.path)
    meta = {
        "origin": dataclasses.asdict(origin),
        "spec": snapshot.spec.as_dict(),
        "image": _image_as_dict(store, snapshot.image),
        "disks": [disk.name for disk in snapshot.disks],
        "abilities": dataclasses.asdict(snapshot.capabilities),
        "guest": dataclasses.asdict(snapshot.guest),
        "bare_devices": snapshot.bare_devices,
        "has_lan": snapshot.has_lan,
        **_memory_as_dict(snapshot.memory),
    }
    (draft / META).write_text(json.dumps(meta, indent=1) + "\n")


def seal_cluster(draft: Path, members: Mapping[str, str], faults: Sequence[FaultSpec], origin: Origin) -> None:
    """Make an entry of a cluster in the directory `draft`: the keys of its `members`, which are entries too."""
    meta = {
        "origin": dataclasses.asdict(origin),
        "full": False,
        "members": dict(members),
        "faults": [fault.as_dict() for fault in faults],
    }
    (draft / META).write_text(json.dumps(meta, indent=1) + "\n")


def moved(snapshot: Snapshot, target: Path) -> Snapshot:
    """The snapshot, after its files were moved to the directory `target`; nothing may use it meanwhile."""
    for path in list(snapshot.directory.iterdir()):
        path.rename(target / path.name)
    memory = snapshot.memory
    if isinstance(memory, LayeredMemory):
        memory = dataclasses.replace(memory, layers=tuple(target / layer.name for layer in memory.layers))
    return dataclasses.replace(
        snapshot,
        directory=target,
        disks=tuple(target / disk.name for disk in snapshot.disks),
        devices=target / snapshot.devices.name,
        memory=memory,
    )


def origin_of(entry: Path) -> Origin:
    """The origin of the snapshot in the directory `entry`; raises `StoreDamaged` if it cannot be read."""
    return _origin_in(_meta(entry))


def _origin_in(meta: Mapping[str, Any]) -> Origin:
    """The origin in the metadata `meta`; `key_parts` was called `outline` before."""
    written = dict(meta["origin"])
    if "outline" in written:
        written["key_parts"] = written.pop("outline")
    return Origin(**written)


def made_from(facts: Facts, image: str) -> dict[str, str]:
    """`Origin.made_from` of a snapshot that is made from `image` on the host with these `facts`."""
    return {
        "image": image,
        "QEMU": facts.qemu_version,
        "libvirt": facts.libvirt_version,
        "accelerator": facts.accelerator.name,
        "CPU": facts.guest_cpu,
    }


def image_files_of(entry: Path) -> list[str]:
    """The files of the image in the metadata of a machine's snapshot: relative to the store, or absolute.

    Raises `StoreDamaged`.
    """
    image = _meta(entry).get("image", {})
    return [image[name] for name in FILES if image.get(name)]


def title_of(store: Store, name: EntryName) -> str:
    """What a person calls the entry `name` of the store."""
    if name.kind == KIND:
        return f"state {origin_of(store.place(name)).name}"
    return f"{name.kind.removesuffix('s')} {name.key}"


def own_image_of(store: Store, name: EntryName) -> str | None:
    """The file outside of the store that the state `name` was made from; None without one."""
    written = image_files_of(store.place(name))
    return next((path for path in written if Path(path).is_absolute()), None)


def is_memory_read_only(entry: Path) -> bool:
    """Whether QEMU opens the snapshot's memory file only for reading; raises `StoreDamaged`."""
    return bool(_meta(entry).get("abilities", {}).get("sealed_memory", True))


def expect_readable(store: Store, meta: dict[str, Any]) -> None:
    """Check that `meta` is metadata as this version writes it.

    Raises `LookupError`, `TypeError`, `ValueError`, or `SpecError`.
    """
    origin = _origin_in(meta)
    if not isinstance(origin.name, str) or not isinstance(origin.created, float | int):
        raise TypeError("its origin")
    for named in (origin.made_from, origin.key_parts):
        if not all(isinstance(text, str) for pair in named.items() for text in pair):
            raise TypeError("its origin")
    if (members := meta.get("members")) is not None:
        for name, key in members.items():
            if not HOST_NAME.fullmatch(name) or not key.isalnum():
                raise ValueError(f"the machine {name} with the key {key}")
        for fault in meta["faults"]:
            FaultSpec.of(fault)
        return
    MachineSpec(**meta["spec"])
    _image_of(store, meta["image"])
    Capabilities(**meta["abilities"])
    GuestNotes(**meta["guest"] | {"shells": tuple(meta["guest"]["shells"])})
    if not all(isinstance(meta.get(name, False), bool) for name in ("bare_devices", "has_lan", "full")):
        raise TypeError("its metadata")


def is_full(entry: Path) -> bool:
    """Whether the snapshot's memory is a file of its own, not a layer on another; raises `StoreDamaged`."""
    return bool(_meta(entry)["full"])


def members_of(entry: Path) -> dict[str, str]:
    """The keys of a cluster's machines by name; empty for a state of one machine. Raises `StoreDamaged`."""
    return dict(_meta(entry).get("members", {}))


def load(store: Store, entry: Path) -> Snapshot:
    """The snapshot in the directory `entry` of the store; raises `StoreDamaged` if its metadata is invalid."""
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
            capabilities=Capabilities(**meta["abilities"]),
            guest=GuestNotes(**meta["guest"] | {"shells": tuple(meta["guest"]["shells"])}),
            bare_devices=meta["bare_devices"],
            has_lan=meta.get("has_lan", False),
        )
    except (KeyError, TypeError) as error:
        raise StoreDamaged(f"{entry / META} is not valid metadata of a snapshot: {error!r}") from error


def load_any(store: Store, entry: Path) -> Saved:
    """The snapshot or the cluster in the directory `entry` of the store; raises `StoreDamaged`."""
    meta = _meta(entry)
    if "members" not in meta:
        return load(store, entry)
    try:
        members = {name: EntryName(kind=KIND, key=key) for name, key in meta["members"].items()}
        machines = {name: load(store, store.place(member)) for name, member in members.items()}
        faults = tuple(FaultSpec.of(plain) for plain in meta["faults"])
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreDamaged(f"{entry / META} is not valid metadata of a cluster: {error!r}") from error
    return ClusterSnapshot(directory=entry, machines=machines, faults=faults)


def use(store: Store, host: Host, name: EntryName) -> Saved:
    """Load the snapshot in the entry `name` of the store, for machines of `host`.

    The run of `host` claims the entry and everything that it needs. Raises `StoreDamaged` if a file is not what
    was saved.
    """
    for each in closure(store.path, name):
        store.pins.add(each)
        expect_whole(store.place(each))
        host.allow_search_to(store.place(each) / META)
    found = load_any(store, store.place(name))
    for snapshot in found.members:
        open_to(host, snapshot)
    return found


def open_to(host: Host, snapshot: Snapshot) -> None:
    """Let QEMU read the disks of a snapshot, what they are based on, and its device state.

    If QEMU runs as another user, what another mode, a registry or the system store has put into the store is
    not open to it yet, nor are the lower disks of a kept machine.
    """
    for path in (*snapshot.disks, snapshot.devices):
        host.reachable(path)
    if host.permissions.user is None:
        return
    for disk in snapshot.disks:
        below = backing_of(disk)
        while below and host.is_in_store(below):
            host.reachable(below)
            below = backing_of(below)


def _memory_as_dict(memory: SavedMemory) -> dict[str, Any]:
    if not isinstance(memory, LayeredMemory):
        return {"full": True}
    layers = [layer.name for layer in memory.layers]
    return {"full": False, "layers": layers, "on_parent": memory.below is not None}


def _memory(store: Store, entry: Path, meta: dict[str, Any], size: int) -> SavedMemory:
    if meta["full"]:
        return FullMemory(fingerprint=read_manifest(entry)[RAM])
    origin = _origin_in(meta)
    parent = origin.parent if meta.get("on_parent", True) else None
    return LayeredMemory(
        below=load(store, store.place(EntryName(kind=KIND, key=parent))).memory if parent else None,
        layers=tuple(entry / name for name in meta.get("layers", [PAGES])),
        size=size,
        loads=meta.get("has_lan", False),
        provide=lambda build: store.provide(
            "memory",
            entry.name,
            f"memory of the state {origin.name}",
            build,
            depends_on=[EntryName(kind=KIND, key=entry.name)],
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
    for name in FILES:
        if path := found[name]:
            found[name] = os.path.relpath(path, store.path) if path.is_relative_to(store.path) else str(path)
    return found


def _image_of(store: Store, found: dict[str, Any]) -> Image:
    paths = {name: store.path / found[name] for name in FILES if found.get(name)}
    return Image(**found | paths)


def origin_now(
    name: str,
    *,
    project: Path,
    parent: str | None,
    made_from: dict[str, str],
    key_parts: dict[str, str] | None = None,
) -> Origin:
    """The origin of a snapshot that is created now."""
    return Origin(
        name=name,
        project=str(project),
        parent=parent,
        made_from=made_from,
        created=time.time(),
        key_parts=key_parts or {},
    )
