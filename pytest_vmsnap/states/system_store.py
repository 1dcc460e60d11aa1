"""The system store: states that all users of a host share, beside the store of each.

Its owner, usually root, adds states to it (`share_state`). The runs of all others take copies from it, which
share their blocks with it where the file system can do that.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError, SpecError, StoreDamaged, StoreError
from pytest_vmsnap.host import NO_ROOM, copy_file
from pytest_vmsnap.model import Finding, ok
from pytest_vmsnap.registry import content_of
from pytest_vmsnap.states import entries
from pytest_vmsnap.states.acceptance import acceptance, why_not_for_others
from pytest_vmsnap.states.entries import KIND, META, RAM, title_of
from pytest_vmsnap.store import (
    MARKS,
    EntryName,
    Fetched,
    Store,
    checksum,
    closure,
    damage_of,
    needs_of,
    read_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.store import Kind, SourceTitle

log = logging.getLogger("pytest_vmsnap.states")

SHARED: tuple[Kind, ...] = ("states", "images")
OPEN_DIRECTORY, OPEN_FILE = 0o755, 0o444
OWN_FILE, OWN_MEMORY = 0o400, 0o600
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
OTHERS_MAY_ENTER = stat.S_IXGRP | stat.S_IXOTH


class SystemStore:
    """The system store at `path`, a source of `store` for the project with the root directory `project`.

    What others than its owner can change is not used, and `progress` says so.
    """

    title: SourceTitle = "system store"

    def __init__(self, path: Path, store: Store, *, project: Path, progress: Progress) -> None:
        self._path = path
        self._store = store
        self._accept = acceptance(store, project=project)
        self._progress = progress

    def fetch(self, name: EntryName, draft: Path, what: str) -> Fetched | None:
        """Fill `draft` with the entry `name`; None if the system store lacks it, or it cannot be used."""
        entry = self._path / name.kind / name.key
        if name.kind not in SHARED or not os.path.isdir(entry):  # noqa: PTH112 - false where we may not enter
            return None
        try:
            expect_rights([*entry.parents, entry, *entry.rglob("*")])
            needs = tuple(needs_of(self._path, name))
            for need in needs:
                self._provide(need)
            with self._progress.step(f"copying the {what} from the system store {self._path}"):
                checksums = self._copy(entry, draft)
            self._accept(name, needs, draft)
        except (StoreDamaged, HostError, OSError) as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise
            for path in draft.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            log.warning("%s in the system store: %s", name, error)
            self._progress.say(f"the {what} in the system store {self._path} is not used: {error}")
            return None
        return Fetched(needs=needs, checksums=checksums)

    def _provide(self, need: EntryName) -> None:
        """See that the store has what an entry was built on, with the same content."""

        def refuse(draft: Path) -> None:  # noqa: ARG001 - as a store calls it
            raise StoreDamaged(f"{need}, which it was built on, is missing")

        place = self._store.provide(need.kind, need.key, str(need), refuse)
        if contents(place) != contents(self._path / need.kind / need.key):
            raise StoreDamaged(f"it was built on other content of {need} than is in {self._store.path}")

    @staticmethod
    def _copy(entry: Path, draft: Path) -> dict[str, int]:
        """Copy the files of `entry`, and prove that each is what was shared; returns their checksums."""
        noted = {name: each for name, each in read_manifest(entry).items() if name not in MARKS}
        found = {str(path.relative_to(entry)) for path in entry.rglob("*") if path.is_file()} - set(MARKS)
        if strange := sorted(found ^ set(noted)):
            raise StoreDamaged(f"its files are not those that were shared: {', '.join(strange)}")
        writable = (entry / RAM).exists() and not entries.is_memory_read_only(entry)  # see Template.save
        for name, each in noted.items():
            target = draft / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            copy_file(entry / name, target)
            if target.stat().st_size != each.size or checksum(target) != each.checksum:
                raise StoreDamaged(f"{entry / name} is not what was shared")
            target.chmod(OWN_MEMORY if name == RAM and writable else OWN_FILE)
        noted.pop(META, None)  # it becomes one of the project
        return {name: each.checksum for name, each in noted.items() if each.checksum is not None}


def expect_own_store(store: Path, system_store: Path | None) -> None:
    """Raise `SpecError` if a run, or a command that adds to its store, would write to the system store."""
    if system_store and os.path.realpath(store) == os.path.realpath(system_store):
        raise SpecError(
            f"{store} is the system store, which only `vmsnap share` adds to",
            hint="set vmsnap_store (VMSNAP_STORE) to another directory",
        )


def contents(entry: Path) -> tuple[str, dict[str, str]]:
    """What two entries of a name have in common if they have the same content; raises `StoreDamaged`."""
    members = entries.members_of(entry) if (entry / META).exists() and entry.parent.name == KIND else {}
    return content_of(entry), members


def finding(path: Path) -> Finding:
    """What `vmsnap doctor` reports about the system store at `path`, which need not exist."""
    name = "system-store"
    if not os.path.lexists(path):
        return ok(name, f"{path} does not exist")
    try:
        for kind in SHARED:
            expect_rights([*path.parents, path, path / kind, *(path / kind).iterdir()])
        count = sum(1 for entry in (path / KIND).iterdir() if not entry.name.startswith("."))
    except StoreDamaged as error:
        advice = "change its owner or mode, or set vmsnap_system_store to none"
        return Finding(name=name, status="warning", found=f"{error.message}: not used", advice=advice)
    except OSError as error:
        advice = "set vmsnap_system_store to another directory, or none"
        found = f"{error.filename} cannot be read ({error.strerror}): not used"
        return Finding(name=name, status="warning", found=found, advice=advice)
    return ok(name, f"{path}: {count} state{'' if count == 1 else 's'}")


def expect_rights(paths: Iterable[Path]) -> None:
    """Raise `StoreDamaged` unless only root and this user can change `paths`, which are no symbolic links.

    Others may write to a directory above if it is sticky, as /tmp is: they cannot replace what is in it.
    """
    owners = {0, os.geteuid()}
    for path in paths:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise StoreDamaged(f"{path} is a symbolic link")
        if found.st_uid not in owners:
            raise StoreDamaged(f"{path} belongs neither to root nor to you, but to the user {found.st_uid}")
        if found.st_mode & OTHERS_MAY_WRITE and not (path.is_dir() and found.st_mode & stat.S_ISVTX):
            raise StoreDamaged(f"others than its owner can write to {path}")


def share_state(store: Store, name: EntryName, path: Path, *, progress: Progress) -> bool:
    """Copy the state in the entry `name` of `store`, and all that it needs, to the system store at `path`.

    All users that may enter `path` can read it there. Returns whether anything was copied. Raises `StoreError`
    if the state cannot be shared or `path` cannot be written to, `StoreDamaged` if the state is damaged,
    `StoreFull`.
    """
    names = _in_order(store, name)
    _expect_sharable(store, names)
    with progress.step(f"checking the {title_of(store, name)}"):
        if damaged := damage_of(store, name):
            raise StoreDamaged(f"{damaged[0].name}: {damaged[0].what}")
    if not path.exists():
        path.mkdir(parents=True)
        path.chmod(OPEN_DIRECTORY)
    elif not path.stat().st_mode & OTHERS_MAY_ENTER:
        progress.say(f"only its owner can enter {path}; to share with all: chmod 755 {path}")
    target = Store(path, progress=progress)
    there = {each for each in names if target.entry(each.kind, each.key)}
    for each in there:
        if contents(target.place(each)) != contents(store.place(each)):
            raise StoreError(
                f"{path} has other content of the {title_of(store, each)} than {store.path}",
                hint="build the state on what is there, with an empty store of your own; or remove that: "
                f"vmsnap --store {path} prune --all",
            )
    for kind in SHARED:
        (path / kind).chmod(OPEN_DIRECTORY)
    for each in names:
        _share(store, each, target, progress)
    return len(there) < len(names)


def _in_order(store: Store, name: EntryName) -> list[EntryName]:
    """`name` and all that it needs, each after what it needs itself."""
    closure(store.path, name)  # raises if one is missing
    found: dict[EntryName, None] = {}

    def visit(one: EntryName) -> None:
        for need in needs_of(store.path, one):
            if need not in found:
                visit(need)
        found[one] = None

    visit(name)
    return list(found)


def _expect_sharable(store: Store, names: Sequence[EntryName]) -> None:
    """Raise `StoreError` if one of `names` was made from a file outside of the store."""
    for each in names:
        if reason := why_not_for_others(store, each):
            raise StoreError(
                f"the {title_of(store, each)} cannot be shared: {reason}", hint=entries.IMAGE_FOR_OTHERS
            )


def _share(store: Store, name: EntryName, target: Store, progress: Progress) -> None:
    """Copy the entry `name`, whose needs are there, and let all read it."""
    source, title = store.place(name), title_of(store, name)

    def copy(draft: Path) -> None:
        with progress.step(f"copying the {title} to {target.path}"):
            for path in source.rglob("*"):
                copied = draft / path.relative_to(source)
                if path.is_file() and copied.name not in MARKS:
                    copied.parent.mkdir(parents=True, exist_ok=True)
                    copy_file(path, copied)

    place = target.provide(name.kind, name.key, title, copy, depends_on=needs_of(store.path, name))
    for path in (*place.rglob("*"), place):
        path.chmod(OPEN_DIRECTORY if path.is_dir() else OPEN_FILE)
