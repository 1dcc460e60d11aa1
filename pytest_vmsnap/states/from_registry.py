"""States in a registry: what is pushed of them, and what is checked before a pulled one is used.

What a registry returns is somebody else's: QEMU parses its disks and its device state, so every file that it
names must be one of its own, or of an entry that it was built on.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import HostError, RegistryError, SpecError, StoreDamaged
from pytest_vmsnap.fork import QCOW2_MAGIC, references_of
from pytest_vmsnap.image import DISK, expect_own_checksum
from pytest_vmsnap.model import MachineSpec
from pytest_vmsnap.registry import Description, Puller, digest_in_registry, find, push, tag_of
from pytest_vmsnap.states import entries
from pytest_vmsnap.states.entries import DEVICES, KIND, META, PAGES, RAM
from pytest_vmsnap.states.lock_file import FILE as LOCK_FILE
from pytest_vmsnap.store import closure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.registry import Pushed, Registry
    from pytest_vmsnap.store import EntryName, Store


def registry_source(
    store: Store,
    client: Registry,
    *,
    root: Path,
    progress: Progress,
    pinned: Mapping[str, str] | None,
    build_instead: bool = True,
) -> Puller:
    """The registry of `client` as a source of `store`, for the project at `root`; see `Puller`."""

    def accept(name: EntryName, needs: Sequence[EntryName], draft: Path) -> None:
        try:
            _expect_own_files(store, needs, draft)
            if name.kind == KIND:
                _adopt(store, needs, draft, project=str(root))
            elif (draft / DISK).exists():
                expect_own_checksum(draft, name.key)
        except HostError as error:
            raise StoreDamaged(error.message) from error

    return Puller(store, client, progress=progress, accept=accept, pinned=pinned, build_instead=build_instead)


def push_state(store: Store, client: Registry, name: EntryName, *, progress: Progress) -> list[Pushed]:
    """Push the state in the entry `name` and everything that it needs; raises as `registry.push`.

    A state that needs a file outside of the store cannot be pushed: another host does not have it.
    """
    for each in closure(store.path, name):
        if each.kind == KIND:
            _expect_no_own_image(store, each)
    return push(store, client, name, describe=lambda each: _described(store, each), progress=progress)


def pull_state(
    store: Store,
    registry: Registry,
    written: str,
    *,
    root: Path,
    progress: Progress,
    pinned: Mapping[str, str] | None,
) -> tuple[EntryName, int] | None:
    """Pull the state that `written` names (see `registry.find`) into the store, for the project at `root`.

    Returns its entry and the number of bytes that were received; None if the registry does not have it. Raises
    `RegistryError`, `StoreDamaged`.
    """
    if (found := find(registry, written)) is None:
        return None
    source = registry_source(store, registry, root=root, progress=progress, pinned=pinned, build_instead=False)
    store.source = source

    def refuse(draft: Path) -> None:  # noqa: ARG001 - as a store calls it
        if pinned is None:
            raise RegistryError(f"{registry.address} no longer has {written}")
        raise RegistryError(
            f"{LOCK_FILE} in {root} does not list {written} as {registry.address} has it",
            hint="`vmsnap lock` adds the states of this project that are in the store and the registry",
        )

    store.provide(found.name.kind, found.name.key, f"state {written}", refuse)
    return found.name, source.received


def lock(
    store: Store, registry: Registry, names: Iterable[EntryName]
) -> tuple[dict[str, str], list[EntryName]]:
    """The digests by tag of `names` and of what they need, and those of `names` that the registry lacks."""
    pins: dict[str, str] = {}
    missing = []
    for name in names:
        digests = {each: digest_in_registry(store, registry, each) for each in closure(store.path, name)}
        if None in digests.values():
            missing.append(name)
        else:
            pins |= {tag_of(each): digest for each, digest in digests.items() if digest}
    return pins, missing


def _described(store: Store, name: EntryName) -> Description:
    if name.kind != KIND:
        return Description(title=title_of(store, name))
    origin = entries.origin_of(store.place(name))
    return Description(title=title_of(store, name), state=origin.name, made_from=origin.outline)


def title_of(store: Store, name: EntryName) -> str:
    """What a person calls the entry `name` of the store."""
    if name.kind == KIND:
        return f"state {entries.origin_of(store.place(name)).name}"
    return f"{name.kind.removesuffix('s')} {name.key}"


def _expect_no_own_image(store: Store, name: EntryName) -> None:
    written = entries.image_files_of(store.place(name))
    if outside := [path for path in written if Path(path).is_absolute()]:
        raise RegistryError(
            f"the {title_of(store, name)} cannot be pushed: it was made from {outside[0]}, a file of this host",
            hint="use an image from an address or by a vendor's name, or debian:SUITE",
        )


def _adopt(store: Store, needs: Sequence[EntryName], draft: Path, *, project: str) -> None:
    """Check the metadata of the state in the directory `draft`, and make it one of `project`."""
    states = {each.key for each in needs if each.kind == KIND}
    try:
        meta: dict[str, Any] = json.loads((draft / META).read_text())
        entries.expect_readable(store, meta)
        if "members" in meta:
            if not set(meta["members"].values()) <= states:
                raise StoreDamaged("it names machines that it does not need")
        else:
            _expect_files(meta, draft)
            within = _places(store, needs)
            for written in entries.image_files_of(draft):
                _expect_within(store.path / written, within, "it")
            parent = meta["origin"]["parent"]
            if not meta["full"] and meta.get("on_parent", True) and parent not in states:
                raise StoreDamaged("its memory is based on a state that it does not need")
        meta["origin"]["project"] = project
    except (OSError, SpecError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise StoreDamaged(f"it is not a state that this version can read: {error!r}") from error
    target = draft / META
    target.chmod(0o600)
    target.write_text(json.dumps(meta, indent=1) + "\n")


def _expect_files(meta: dict[str, Any], draft: Path) -> None:
    """Raise `StoreDamaged` unless the state has the files that its metadata names."""
    size = MachineSpec(**meta["spec"]).memory << 20
    layers = [] if meta["full"] else meta.get("layers", [PAGES])
    for name in (DEVICES, *([RAM] if meta["full"] else []), *meta["disks"], *layers):
        if not isinstance(name, str) or "/" in name or not (draft / name).exists():
            raise StoreDamaged(f"it lacks its file {name!r}")
    if meta["full"] and (draft / RAM).stat().st_size < size:
        raise StoreDamaged(f"its memory has less than {size >> 20} MiB")
    for layer in layers:
        for path in (draft / layer).iterdir():  # named by its offset: see LayeredMemory
            if int(path.name, 16) + path.stat().st_size > size:
                raise StoreDamaged(f"its memory has more than {size >> 20} MiB")


def _expect_own_files(store: Store, needs: Sequence[EntryName], draft: Path) -> None:
    """Raise `StoreDamaged` if a disk in `draft` refers to a file that is not in one of `needs`."""
    within = _places(store, needs)
    for path in draft.rglob("*"):
        if path.is_file() and _is_qcow2(path):
            for written in references_of(path):
                if ":" in written:  # of another protocol, or in JSON
                    raise StoreDamaged(f"{path.name} refers to a file outside of it: {written}")
                # an entry of the store is a directory two levels below the store, as the draft is
                _expect_within(path.parent / written, within, path.name)


def _is_qcow2(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(QCOW2_MAGIC)) == QCOW2_MAGIC


def _places(store: Store, needs: Sequence[EntryName]) -> list[Path]:
    """The directories of `needs`, and of what these need."""
    return [store.place(each) for need in needs for each in closure(store.path, need)]


def _expect_within(path: Path, within: Sequence[Path], what: str) -> None:
    found = os.path.realpath(path)
    if not any(found.startswith(os.path.realpath(place) + os.sep) for place in within):
        raise StoreDamaged(f"{what} refers to a file outside of what it was built on: {path}")
