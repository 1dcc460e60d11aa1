"""States in a registry: what is pushed of them, and what is checked before a pulled one is used.

What a registry returns is somebody else's: QEMU parses its disks and its device state, so every file that it
names must be one of its own, or of an entry that it was built on.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import HostError, RegistryError, StoreDamaged
from pytest_vmsnap.fork import references_of
from pytest_vmsnap.model import MachineSpec
from pytest_vmsnap.registry import Description, Puller, digest_in_registry, find, push, tag_of
from pytest_vmsnap.states import entries
from pytest_vmsnap.states.entries import DEVICES, FILES, KIND, META, RAM
from pytest_vmsnap.states.lock_file import FILE as LOCK_FILE
from pytest_vmsnap.store import closure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

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
        if name.kind == KIND:
            _accept_state(store, needs, draft, project=str(root))
        else:
            _expect_own(_disks(draft), [], f"{name}")

    return Puller(store, client, progress=progress, accept=accept, pinned=pinned, build_instead=build_instead)


def push_state(store: Store, client: Registry, name: EntryName, *, progress: Progress) -> list[Pushed]:
    """Push the state in the entry `name` and everything that it needs; raises as `registry.push`."""
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
    if (name := find(registry, written)) is None:
        return None
    source = registry_source(store, registry, root=root, progress=progress, pinned=pinned, build_instead=False)
    store.source = source

    def refuse(draft: Path) -> None:  # noqa: ARG001 - as a store calls it
        raise RegistryError(
            f"{registry.address} has {written}, but not as {LOCK_FILE} in {root} says",
            hint="`vmsnap lock` writes that file anew",
        )

    store.provide(name.kind, name.key, f"state {written}", refuse)
    return name, source.received


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
    made_from = entries.origin_of(store.place(name)).outline if name.kind == KIND else {}
    return Description(title=title_of(store, name), made_from=made_from)


def title_of(store: Store, name: EntryName) -> str:
    """What a person calls the entry `name` of the store."""
    if name.kind == KIND:
        return f"state {entries.origin_of(store.place(name)).name}"
    return f"{name.kind.removesuffix('s')} {name.key}"


def _accept_state(store: Store, needs: Sequence[EntryName], draft: Path, *, project: str) -> None:
    """Check the state in the directory `draft`, and make it one of `project`."""
    try:
        meta: dict[str, Any] = json.loads((draft / META).read_text())
        members = meta.get("members")
        if members is None:
            spec = MachineSpec(**meta["spec"])
            layers = [] if meta["full"] else meta.get("layers", [])
            memory = [RAM] if meta["full"] else layers
            for name in (DEVICES, *memory, *meta["disks"]):
                if "/" in name or not (draft / name).is_file():
                    raise StoreDamaged(f"it lacks its file {name}")
            if meta["full"] and (draft / RAM).stat().st_size < spec.memory << 20:
                raise StoreDamaged(f"its memory has less than {spec.memory} MiB")
            within = [store.place(each) for each in needs]
            disks = [draft / name for name in meta["disks"]]
            _expect_own(disks, within, "its disk", store=store)
            for kind in FILES:
                if written := meta["image"].get(kind):
                    _expect_within(store.path / written, within, f"its {kind}")
            parent = meta["origin"]["parent"]
            known = {each.key for each in needs if each.kind == KIND}
        else:
            parent, known = None, {each.key for each in needs if each.kind == KIND}
            if not set(members.values()) <= known:
                raise StoreDamaged("it names machines that it does not need")
        if parent is not None and not meta.get("full", True) and parent not in known:
            raise StoreDamaged("its memory is based on a state that it does not need")
        meta["origin"]["project"] = project
    except (OSError, ValueError, KeyError, TypeError, AttributeError, HostError) as error:
        raise StoreDamaged(f"it is not a state that this version can read: {error!r}") from error
    target = draft / META
    target.chmod(0o600)
    target.write_text(json.dumps(meta, indent=1) + "\n")


def _disks(draft: Path) -> list[Path]:
    return [path for path in draft.rglob("*.qcow2") if path.is_file()]


def _expect_own(
    disks: Iterable[Path], within: Sequence[Path], what: str, *, store: Store | None = None
) -> None:
    """Raise `StoreDamaged` if a disk refers to a file that is not in the directories `within`."""
    for disk in disks:
        for written in references_of(disk):
            if ":" in written or store is None:
                raise StoreDamaged(f"{what} {disk.name} refers to a file outside of it: {written}")
            # an entry of the store is a directory two levels below the store, as the draft is
            _expect_within(disk.parent / written, within, f"{what} {disk.name}")


def _expect_within(path: Path, within: Sequence[Path], what: str) -> None:
    found = os.path.realpath(path)
    if not any(found.startswith(os.path.realpath(place) + os.sep) for place in within):
        raise StoreDamaged(f"{what} refers to a file outside of what it was built on: {path}")
