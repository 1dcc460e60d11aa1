"""The system store: states that all users of a host share, beside the store of each.

Its owner, usually root, adds states to it (`share_state`). All others use its files where they are.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError, StoreDamaged, StoreError
from pytest_vmsnap.host import NO_ROOM, copy_file
from pytest_vmsnap.model import Finding, ok
from pytest_vmsnap.registry import content_of
from pytest_vmsnap.states import entries
from pytest_vmsnap.states.acceptance import acceptance
from pytest_vmsnap.states.entries import KIND, META, RAM, title_of
from pytest_vmsnap.store import (
    MARKS,
    Fetched,
    Store,
    closure,
    damage_of,
    expect_foreign_whole,
    needs_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.store import EntryName, Kind, SourceTitle

log = logging.getLogger("pytest_vmsnap.states")

SHARED: tuple[Kind, ...] = ("states", "images")
OPEN_DIRECTORY, OPEN_FILE = 0o755, 0o444
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class SystemStore:
    """The system store at `path`, a source of `store` for the project with the root directory `project`.

    An entry of `store` that comes from there has symbolic links to its files, or, without `links`, copies: they
    are needed where QEMU runs as a user of its own, which the plugin gives access to files of `store` only.
    What others than its owner can write to is not used, and `progress` says so.
    """

    title: SourceTitle = "system store"

    def __init__(self, path: Path, store: Store, *, project: Path, links: bool, progress: Progress) -> None:
        self._path = path
        self._store = store
        self._accept = acceptance(store, project=project)
        self._links = links
        self._progress = progress
        self._refused: set[str] = set()

    def fetch(self, name: EntryName, draft: Path, what: str) -> Fetched | None:
        """Fill `draft` with the entry `name`; None if the system store lacks it, or it cannot be used."""
        entry = self._path / name.kind / name.key
        try:
            if name.kind not in SHARED or not entry.is_dir():
                return None
            expect_rights([self._path, entry.parent, entry, *entry.rglob("*")])
            noted = {file: each for file, each in expect_foreign_whole(entry).items() if file not in MARKS}
            needs = tuple(needs_of(self._path, name))
            for need in needs:
                place = self._store.provide(need.kind, need.key, str(need), self._refuse)
                if content_of(place) != content_of(self._path / need.kind / need.key):
                    raise StoreDamaged(f"it was built on other content of {need} than is in {self._store.path}")
            copied = {META, RAM} if name.kind == KIND and not entries.is_memory_read_only(entry) else {META}
            with self._progress.step(f"taking the {what} from the system store {self._path}"):
                for file in noted:
                    self._put(entry / file, draft / file, link=self._links and file not in copied)
            self._accept(name, needs, draft)
        except (StoreDamaged, HostError, OSError) as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise
            for path in draft.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            self._say(f"the {what} in the system store {self._path} is not used: {error}")
            return None
        known = {file: each.checksum for file, each in noted.items() if file != META}
        return Fetched(
            needs=needs, checksums={file: value for file, value in known.items() if value is not None}
        )

    @staticmethod
    def _put(source: Path, target: Path, *, link: bool) -> None:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if link:
            target.symlink_to(source)
        else:
            copy_file(source, target)

    def _refuse(self, draft: Path) -> None:  # noqa: ARG002 - as a store calls it
        raise StoreDamaged("what it was built on is missing")

    def _say(self, line: str) -> None:
        log.warning("%s", line)
        if line not in self._refused:
            self._refused.add(line)
            self._progress.say(line)


def finding(path: Path) -> Finding:
    """What `vmsnap doctor` reports about the system store at `path`, which need not exist."""
    name = "system-store"
    if not path.is_dir():
        return ok(name, f"{path} does not exist")
    try:
        for kind in SHARED:
            expect_rights([path, path / kind, *(path / kind).iterdir()])
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
    """Raise `StoreDamaged` unless `paths` belong to root or this user, and only their owner can change them."""
    owners = {0, os.geteuid()}
    for path in paths:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise StoreDamaged(f"{path} is a symbolic link")
        if found.st_uid not in owners:
            raise StoreDamaged(f"{path} belongs neither to root nor to you, but to the user {found.st_uid}")
        if found.st_mode & OTHERS_MAY_WRITE:
            raise StoreDamaged(f"others than its owner can write to {path}")


def share_state(store: Store, name: EntryName, path: Path, *, progress: Progress) -> bool:
    """Copy the state in the entry `name` of `store`, and all that it needs, to the system store at `path`.

    All users that may enter `path` can read it there. Returns whether anything was copied. Raises `StoreError`
    if the state cannot be shared or `path` cannot be written to, `StoreDamaged` if the state is damaged,
    `StoreFull`.
    """
    for each in closure(store.path, name):
        if each.kind == KIND and (outside := entries.own_image_of(store, each)):
            raise StoreError(
                f"the {title_of(store, each)} cannot be shared: it was made from {outside}, a file of its own",
                hint=entries.IMAGE_FOR_OTHERS,
            )
    with progress.step(f"checking the {title_of(store, name)}"):
        if damaged := damage_of(store, name):
            raise StoreDamaged(f"{damaged[0].name}: {damaged[0].what}")
    is_new = not path.exists()
    target = Store(path, progress=progress)
    copied = _share(store, name, target, progress)
    if is_new:
        path.chmod(OPEN_DIRECTORY)
    for kind in SHARED:
        (path / kind).chmod(OPEN_DIRECTORY)
    return copied


def _share(store: Store, name: EntryName, target: Store, progress: Progress) -> bool:
    """Copy the entry `name`, after what it needs; returns whether anything was copied."""
    needs = needs_of(store.path, name)
    copied = [_share(store, need, target, progress) for need in needs]
    source, title = store.place(name), title_of(store, name)

    def copy(draft: Path) -> None:
        with progress.step(f"copying the {title} to {target.path}"):
            for path in source.rglob("*"):
                copied = draft / path.relative_to(source)
                if path.is_file() and copied.name not in MARKS:
                    copied.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    copy_file(path, copied)

    is_missing = target.entry(name.kind, name.key) is None
    place = target.provide(name.kind, name.key, title, copy, depends_on=needs)
    if content_of(place) != content_of(source):
        raise StoreError(
            f"{target.path} has other content of the {title} than {store.path}",
            hint="build the state on what is there, with an empty store of your own; or remove what is there: "
            f"vmsnap --store {target.path} prune --all",
        )
    for path in (*place.rglob("*"), place):
        path.chmod(OPEN_DIRECTORY if path.is_dir() else OPEN_FILE)
    return is_missing or any(copied)
