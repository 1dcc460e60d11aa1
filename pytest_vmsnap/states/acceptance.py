"""What is checked of an entry that another store made, before it is used.

It is somebody else's: QEMU parses its disks and its device state, so every file that it names must be one of
its own, or of an entry that it was built on.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import HostError, SpecError, StoreDamaged
from pytest_vmsnap.fork import QCOW2_MAGIC, references_of
from pytest_vmsnap.image import DISK, expect_own_checksum
from pytest_vmsnap.model import MachineSpec
from pytest_vmsnap.states import entries
from pytest_vmsnap.states.entries import DEVICES, KIND, META, PAGES, RAM
from pytest_vmsnap.store import closure, needs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_vmsnap.store import EntryName, Store


def acceptance(store: Store, *, project: Path) -> Callable[[EntryName, Sequence[EntryName], Path], None]:
    """What a source of `store` calls with an entry's name, what it needs, and its directory.

    It makes the entry one of the project with the root directory `project`, and raises `StoreDamaged` if the
    entry cannot be used.
    """

    def accept(name: EntryName, needs: Sequence[EntryName], draft: Path) -> None:
        try:
            expect_own_files(store, needs, draft)
            if name.kind == KIND:
                _adopt(store, needs, draft, project=str(project))
            elif (draft / DISK).exists():
                expect_own_checksum(draft, name.key)
        except HostError as error:
            raise StoreDamaged(error.message) from error

    return accept


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


def expect_own_files(store: Store, needs: Sequence[EntryName], draft: Path) -> None:
    """Raise `StoreDamaged` if a disk in `draft` refers to a file that is not in one of `needs`."""
    within = _places(store, needs)
    for path in draft.rglob("*"):
        if path.is_file() and _is_qcow2(path):
            for written in references_of(path):
                if ":" in written:  # of another protocol, or in JSON
                    raise StoreDamaged(f"{path.name} refers to a file outside of it: {written}")
                # an entry of the store is a directory two levels below the store, as the draft is
                _expect_within(path.parent / written, within, path.name)


def why_not_for_others(store: Store, name: EntryName) -> str | None:
    """Why no other store can have the entry `name`: it needs a file outside of this one. None if it can."""
    if name.kind == KIND and (outside := entries.own_image_of(store, name)):
        return f"it was made from {outside}, a file of this host"
    try:
        expect_own_files(store, needs_of(store.path, name), store.place(name))
    except StoreDamaged as error:
        return error.message
    return None


def _is_qcow2(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(QCOW2_MAGIC)) == QCOW2_MAGIC


def _places(store: Store, needs: Sequence[EntryName]) -> list[Path]:
    """The directories of `needs`, and of what these need."""
    return [store.place(each) for need in needs for each in closure(store.path, need)]


def _expect_within(path: Path, within: Sequence[Path], what: str) -> None:
    found = path.resolve()
    if not any(found.is_relative_to(place.resolve()) for place in within):
        raise StoreDamaged(f"{what} refers to a file outside of what it was built on: {path}")
