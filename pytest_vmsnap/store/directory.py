"""The store's directory, and the making of its entries."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from filelock import BaseFileLock, FileLock, Timeout

from pytest_vmsnap.errors import StoreDamaged, StoreError, StoreFormat, StoreFull
from pytest_vmsnap.host import MORE_ROOM, write_whole
from pytest_vmsnap.store import manifest, needs
from pytest_vmsnap.store.asker import Asker
from pytest_vmsnap.store.claims import Claims
from pytest_vmsnap.store.needs import Kind, Name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_vmsnap.progress import Progress

log = logging.getLogger("pytest_vmsnap.store")

FORMAT = "1"
FORMAT_FILE = "format"
CHECKED: tuple[Kind, ...] = ("states", "memory", "images")  # what their files were is noted
READ: tuple[Kind, ...] = ("states", "images")  # ... with checksums: what cannot be made again in a moment
WAIT_SECONDS = 1.0
LOOK_SECONDS = 0.25  # how soon another who builds is noticed


class Store:
    """A directory of entries, each named by a key of its content.

    An entry appears by one rename of a complete directory; while one is built, a lock on its key keeps
    others waiting. One that a run uses is claimed by it, and stays until that run has ended. Directories have
    mode 0700, for what they hold may be secret. With `refresh` what was built before the `asker` began is made
    anew. `progress` is where it says what it waits for.

    Raises `StoreError` where the directory cannot be used, `StoreFormat` where another version wrote it.
    """

    def __init__(
        self, path: Path, *, progress: Progress, refresh: bool = False, asker: Asker | None = None
    ) -> None:
        self.path = path
        self._asker = asker or Asker()
        self.progress = progress
        self._refresh = refresh
        self._damaged: set[Name] = set()
        self._fresh: set[Name] = set()  # those that were looked at in this run
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in (*get_args(Kind), "locks", "runs"):
                (path / name).mkdir(exist_ok=True, mode=0o700)
            self._check_format()
        except OSError as error:
            raise StoreError(
                f"the store {path} cannot be used: {error.strerror}",
                hint="choose another directory with --vmsnap-store (VMSNAP_STORE, vmsnap_store)",
            ) from error
        self.claims = Claims(self.runs)

    def _check_format(self) -> None:
        mark = self.path / FORMAT_FILE
        try:
            found = mark.read_text().strip()
        except FileNotFoundError:
            write_whole(mark, FORMAT + "\n")
            return
        if found != FORMAT:
            raise StoreFormat(
                f"the store {self.path} has format {found}; this version of pytest-vmsnap writes {FORMAT}",
                hint="it is left alone: choose another directory with --vmsnap-store, or remove it",
            )

    @property
    def runs(self) -> Path:
        """Where runs keep what ends with them."""
        return self.path / "runs"

    def entry(self, kind: Kind, key: str) -> Path | None:
        """The directory of the entry, or None while there is none."""
        path = self.path / kind / key
        return path if path.is_dir() else None

    def entries(self, *kinds: Kind) -> list[Name]:
        """All entries of `kinds`, in no order."""
        return [
            Name(kind=kind, key=path.name)
            for kind in kinds
            for path in (self.path / kind).iterdir()
            if path.is_dir() and not path.name.startswith(".")
        ]

    def place(self, name: Name) -> Path:
        """Where the entry is, if it is there."""
        return self.path / name.kind / name.key

    def provide(
        self,
        kind: Kind,
        key: str,
        what: str,
        build: Callable[[Path], None],
        *,
        made_on: Iterable[Name] = (),
        anew: bool = False,
    ) -> Path:
        """The entry's directory; if there is none yet, `build` fills a new directory that becomes it.

        `what` names it to the person who waits, e.g. ``"image debian:trixie"``; `made_on` are the entries
        that it cannot be without. With `anew` one that was there before this run, or the test run that it is
        a worker of, is not taken. Of several runs that ask at once, one builds and the others wait. Whatever
        `build` raises leaves nothing behind. An entry that is damaged is made anew, which is said.

        Raises `StoreFull` where the space ended while it was built.
        """
        name = Name(kind=kind, key=key)
        if found := self._usable(name, what, anew):
            return found
        with self._building(name, what):
            if found := self._usable(name, what, anew):
                return found
            self._clear(name, what)
            path = self._build(name, what, build, tuple(made_on))
            self._fresh.add(name)
            return path

    def _usable(self, name: Name, what: str, anew: bool) -> Path | None:
        """The entry, claimed and proved to be what was saved; None where it is to be made."""
        known = name in self._fresh
        refreshed = anew or (self._refresh and name.kind != "downloads")
        if not known and refreshed and not self._is_new(name):
            return None
        with self._guard():
            if (path := self.entry(name.kind, name.key)) is None:
                return None
            try:
                for each in needs.closure(self.path, name):
                    self.claims.add(each)
            except StoreDamaged as error:
                self._say_damaged(name, what, error)
                return None
        try:
            if not known:
                manifest.check(path)
        except StoreDamaged as error:
            self._say_damaged(name, what, error)
            return None
        (path / manifest.USED).touch(mode=0o600)
        self._fresh.add(name)
        return path

    def _is_new(self, name: Name) -> bool:
        """Whether the entry is there, and was built since the test run began: by another worker, say."""
        try:
            return (self.place(name) / manifest.BUILT).stat().st_mtime >= self._asker.since
        except FileNotFoundError:
            return False

    def _say_damaged(self, name: Name, what: str, error: StoreDamaged) -> None:
        log.warning("%s: %s", name, error)
        if name not in self._damaged and name.kind != "memory":  # that is made again in a moment
            self._damaged.add(name)
            self.progress.say(f"the {what} in the store is damaged, and is made anew: {error.message}")

    def _clear(self, name: Name, what: str) -> None:
        """Remove what is there of the entry, and what was made on it; those who use it are waited for."""
        above = needs.dependents(self.path, self.entries("states", "memory"), name)
        if above and not self.place(name).exists():
            self.progress.say(
                f"what was made on the {what} in the store is damaged, and is made anew: that is not there"
            )
        gone = [*above, name]
        with self._guard():
            users = self.claims.others(gone)
        if users and self.place(name).exists():
            with self.progress.step(f"waiting for another run that uses the {what}, to make it anew"):
                while users:
                    time.sleep(WAIT_SECONDS)  # nobody tells when a run has ended
                    users = self.claims.others(gone)
        for each in gone:
            self._fresh.discard(each)
            self.remove(each)

    def remove(self, name: Name, *, unless_used: bool = False) -> bool:
        """Remove the entry, which is gone for others at once; returns whether it was there.

        With `unless_used` it stays where any run uses it.
        """
        path = self.place(name)
        with self._guard():
            if not path.exists() or (unless_used and self.claims.is_used(name)):
                return False
            aside = Path(tempfile.mkdtemp(prefix=f".{name.key}.", dir=path.parent))
            path.rename(aside / "gone")
            self._fresh.discard(name)
        shutil.rmtree(aside, ignore_errors=True)
        return True

    def leave(self, name: Name) -> bool:
        """Give up our claim on the entry; returns whether no other run has one: whether we were the last."""
        with self._guard():
            self.claims.remove(name)
            return not self.claims.others([name])

    def _build(self, name: Name, what: str, build: Callable[[Path], None], made_on: tuple[Name, ...]) -> Path:
        path = self.place(name)
        for half in path.parent.glob(f".{path.name}.*"):  # we hold the lock: whoever began these is gone
            shutil.rmtree(half, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            build(draft)
            needs.write(draft, made_on)
            if name.kind in CHECKED:
                manifest.write(draft, checksums=name.kind in READ)
            for mark in (manifest.BUILT, manifest.USED):
                (draft / mark).touch(mode=0o600)
            with self._guard():
                draft.rename(path)
                for each in (name, *made_on):
                    self.claims.add(each)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                free = shutil.disk_usage(self.path).free >> 20
                raise StoreFull(
                    f"no space left for {what} in the store {self.path} ({free} MiB free)",
                    hint=MORE_ROOM,
                ) from error
            raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return path

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Nobody claims or removes an entry meanwhile, in no run."""
        with FileLock(self.path / "locks" / "entries.lock", mode=0o600):
            yield

    @contextmanager
    def _building(self, name: Name, what: str) -> Iterator[None]:
        lock = FileLock(self.path / "locks" / f"{name.kind}-{name.key}.lock", mode=0o600)
        signature = self.path / "locks" / f"{name.kind}-{name.key}.who"
        try:
            lock.acquire(blocking=False)
        except Timeout:
            self._wait(lock, signature, what)
        try:
            os.utime(lock.lock_file)
            self._asker.sign(signature)
            yield
        finally:
            signature.unlink(missing_ok=True)
            lock.release()

    def _wait(self, lock: BaseFileLock, signature: Path, what: str) -> None:
        """Wait for the lock, and say for whom; another may come between who has it now and us."""
        while not lock.is_locked:
            whom = self._asker.told_of(signature)
            with self.progress.step(f"waiting for {whom}, which makes the {what}"):
                while not lock.is_locked and self._asker.told_of(signature) == whom:
                    with suppress(Timeout):
                        lock.acquire(timeout=LOOK_SECONDS)
