"""The store's directory, and how its entries are built."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from filelock import BaseFileLock, FileLock, Timeout

from pytest_vmsnap.errors import StoreDamaged, StoreError, StoreFormat, StoreFull
from pytest_vmsnap.host import MORE_ROOM, NO_ROOM, write_whole
from pytest_vmsnap.store import dependencies, manifest
from pytest_vmsnap.store.dependencies import EntryName, Kind
from pytest_vmsnap.store.lock_owner import LockOwner
from pytest_vmsnap.store.pins import Pins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pytest_vmsnap.progress import Progress

log = logging.getLogger("pytest_vmsnap.store")

FORMAT = "1"
FORMAT_FILE = "format"
PARTIAL = "partial"  # the directory of entries that are being fetched
PARTIAL_DAYS = 7  # that a broken-off fetch stays, to be continued
WITH_MANIFEST: tuple[Kind, ...] = ("states", "memory", "images")  # they have a manifest of their files
WITH_CHECKSUMS: tuple[Kind, ...] = (
    "states",
    "images",
)  # ... with checksums: they cannot be rebuilt in a moment
WAIT_SECONDS = 1.0
SourceTitle = Literal["registry", "system store"]
LOOK_SECONDS = 0.25  # how often to look which process builds


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """An entry that a `Source` had: what it `needs`, and the checksums of its files that are known already."""

    needs: tuple[EntryName, ...]
    checksums: Mapping[str, int]


class Source(Protocol):
    """Where a store may have an entry from, instead of building it; `title` names it to the user."""

    title: SourceTitle

    def fetch(self, name: EntryName, draft: Path, what: str) -> Fetched | None:
        """Fill the directory `draft` with the entry `name`; None, and an empty `draft`, if it cannot."""


class Store:
    """A directory of entries, each named by a key of its content.

    An entry appears by one rename of a complete directory. While it is built, a lock on its key makes other
    processes wait. A run pins the entries that it uses; they stay until that run has ended. Directories have
    mode 0700, because their content may be secret. With `refresh`, what was built before the run of
    `lock_owner` began is rebuilt. `progress` shows what the store waits for.

    Raises `StoreError` if the directory cannot be used, `StoreFormat` if another version wrote it.
    """

    def __init__(
        self, path: Path, *, progress: Progress, refresh: bool = False, lock_owner: LockOwner | None = None
    ) -> None:
        self.path = path
        self._lock_owner = lock_owner or LockOwner()
        self.progress = progress
        self.refresh = refresh
        self._damaged: set[EntryName] = set()
        self._fresh: set[EntryName] = set()  # checked or built in this run
        self.sources: list[Source] = []  # of entries that are missing, tried in order; not of those to refresh
        self.fetched: dict[EntryName, SourceTitle] = {}  # the titles of their sources, in this run
        self.distrusted: set[EntryName] = set()  # what came from there, and could not be used
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in (*get_args(Kind), "locks", "runs", PARTIAL):
                (path / name).mkdir(exist_ok=True, mode=0o700)
            self._check_format()
        except OSError as error:
            raise StoreError(
                f"the store {path} cannot be used: {error.strerror}",
                hint="choose another directory with --vmsnap-store (VMSNAP_STORE, vmsnap_store)",
            ) from error
        self.pins = Pins(self.runs)

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
                hint="choose another directory with --vmsnap-store, or remove this one; the plugin does "
                "not change it",
            )

    @property
    def partial(self) -> Path:
        """The directory of what sources have fetched in part; it is removed after `PARTIAL_DAYS`."""
        return self.path / PARTIAL

    def remove_old_partial(self) -> None:
        """Remove what was fetched in part and not continued for `PARTIAL_DAYS`."""
        oldest = time.time() - PARTIAL_DAYS * 86400
        for path in self.partial.iterdir():
            with suppress(OSError):
                if max(each.stat().st_mtime for each in (path, *path.iterdir())) < oldest:
                    shutil.rmtree(path, ignore_errors=True)

    @property
    def runs(self) -> Path:
        """The directory with a directory for each run, which is removed with the run."""
        return self.path / "runs"

    def entry(self, kind: Kind, key: str) -> Path | None:
        """The directory of the entry; None if it does not exist."""
        path = self.path / kind / key
        return path if path.is_dir() else None

    def entries(self, *kinds: Kind) -> list[EntryName]:
        """All entries of `kinds`, in no particular order."""
        return [
            EntryName(kind=kind, key=path.name)
            for kind in kinds
            for path in (self.path / kind).iterdir()
            if path.is_dir() and not path.name.startswith(".")
        ]

    def place(self, name: EntryName) -> Path:
        """The path of the entry, which need not exist."""
        return self.path / name.kind / name.key

    def provide(
        self,
        kind: Kind,
        key: str,
        what: str,
        build: Callable[[Path], Iterable[EntryName] | None],
        *,
        depends_on: Iterable[EntryName] = (),
        rebuild: bool = False,
    ) -> Path:
        """Return the entry's directory; if there is none, `build` fills a new directory that becomes the entry.

        `what` names it to the user, e.g. ``"image debian:trixie"``; `depends_on` are the entries that it
        needs; `build` may return more. With `rebuild`, an entry from before this run (for a worker, before its
        run) is not used.
        If several processes ask at once, one builds and the others wait. If `build` raises, nothing is left
        behind. A damaged entry is rebuilt, and `progress` says so.

        Raises `StoreFull` if the space runs out while it is built.
        """
        name = EntryName(kind=kind, key=key)
        if found := self._usable(name, what, rebuild):
            return found
        with self._building(name, what):
            if found := self._usable(name, what, rebuild):
                return found
            self._clear(name, what)
            refreshed = rebuild or (self.refresh and name.kind != "downloads")
            sources = [] if refreshed or name in self.distrusted else self.sources
            path = self._build(name, what, build, tuple(depends_on), sources)
            self._fresh.add(name)
            return path

    def _usable(self, name: EntryName, what: str, rebuild: bool) -> Path | None:
        """The entry, pinned and proved to be what was saved; None if it must be built."""
        known = name in self._fresh
        refreshed = rebuild or (self.refresh and name.kind != "downloads")
        if not known and refreshed and not self._is_new(name):
            return None
        with self._guard():
            if (path := self.entry(name.kind, name.key)) is None:
                return None
            try:
                for each in dependencies.closure(self.path, name):
                    self.pins.add(each)
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

    def _is_new(self, name: EntryName) -> bool:
        """Whether the entry exists and was built since the test run began, for example by another worker."""
        try:
            return (self.place(name) / manifest.BUILT).stat().st_mtime >= self._lock_owner.since
        except FileNotFoundError:
            return False

    def _say_damaged(self, name: EntryName, what: str, error: StoreDamaged) -> None:
        log.warning("%s: %s", name, error)
        if name not in self._damaged and name.kind != "memory":  # memory is rebuilt in a moment
            self._damaged.add(name)
            self.progress.say(f"the {what} in the store is damaged and will be rebuilt: {error.message}")

    def _clear(self, name: EntryName, what: str) -> None:
        """Remove the entry and those built on it; if it exists, wait first for runs that use any of them."""
        above = dependencies.dependents(self.path, self.entries("states", "memory"), name)
        if above and not self.place(name).exists():
            self.progress.say(f"the {what} is missing from the store; what was built on it will be rebuilt")
        gone = [*above, name]
        with self._guard():
            users = self.pins.others(gone)
        if users and self.place(name).exists():
            with self.progress.step(f"waiting for another run to stop using the {what}, to rebuild it"):
                while users:
                    time.sleep(WAIT_SECONDS)  # nothing signals that a run has ended
                    users = self.pins.others(gone)
        for each in gone:
            self._fresh.discard(each)
            self.remove(each)

    def remove(self, name: EntryName, *, unless_used: bool = False) -> bool:
        """Remove the entry, at once for all runs; returns whether it was removed.

        With `unless_used`, an entry that any run uses stays.
        """
        path = self.place(name)
        with self._guard():
            if not path.exists() or (unless_used and self.pins.is_used(name)):
                return False
            aside = Path(tempfile.mkdtemp(prefix=f".{name.key}.", dir=path.parent))
            path.rename(aside / "gone")
            self._fresh.discard(name)
        shutil.rmtree(aside, ignore_errors=True)
        return True

    def unpin(self, name: EntryName) -> bool:
        """Unpin the entry for this run; returns whether this run was the last: no other has it pinned."""
        with self._guard():
            self.pins.remove(name)
            return not self.pins.others([name])

    def _build(
        self,
        name: EntryName,
        what: str,
        build: Callable[[Path], Iterable[EntryName] | None],
        depends_on: tuple[EntryName, ...],
        sources: Sequence[Source],
    ) -> Path:
        path = self.place(name)
        for half in path.parent.glob(f".{path.name}.*"):  # we hold the lock, so their builders are dead
            shutil.rmtree(half, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            fetched = None
            for source in sources:
                if fetched := source.fetch(name, draft, what):
                    self.fetched[name] = source.title
                    break
            if fetched:
                depends_on = fetched.needs
            else:
                depends_on += tuple(build(draft) or ())
            dependencies.write(draft, depends_on)
            if name.kind in WITH_MANIFEST:
                known = fetched.checksums if fetched else None
                manifest.write(draft, checksums=name.kind in WITH_CHECKSUMS, known=known)
            for mark in (manifest.BUILT, manifest.USED, *([manifest.PULLED] if fetched else [])):
                (draft / mark).touch(mode=0o600)
            with self._guard():
                draft.rename(path)
                for each in (name, *depends_on):
                    self.pins.add(each)
        except OSError as error:
            if error.errno in NO_ROOM:
                free = shutil.disk_usage(self.path).free >> 20
                raise StoreFull(
                    f"not enough space for the {what} in the store {self.path} ({free} MiB free)",
                    hint=MORE_ROOM,
                ) from error
            raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return path

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Keep all runs from pinning or removing entries meanwhile."""
        with FileLock(self.path / "locks" / "entries.lock", mode=0o600):
            yield

    @contextmanager
    def _building(self, name: EntryName, what: str) -> Iterator[None]:
        lock = FileLock(self.path / "locks" / f"{name.kind}-{name.key}.lock", mode=0o600)
        signature = self.path / "locks" / f"{name.kind}-{name.key}.who"
        try:
            lock.acquire(blocking=False)
        except Timeout:
            self._wait(lock, signature, what)
        try:
            os.utime(lock.lock_file)
            self._lock_owner.sign(signature)
            yield
        finally:
            signature.unlink(missing_ok=True)
            lock.release()

    def _wait(self, lock: BaseFileLock, signature: Path, what: str) -> None:
        """Wait for the lock, and show who holds it; other processes may get it before us."""
        while not lock.is_locked:
            whom = self._lock_owner.describe_owner(signature)
            with self.progress.step(f"waiting for {whom}, which builds the {what}"):
                while not lock.is_locked and self._lock_owner.describe_owner(signature) == whom:
                    with suppress(Timeout):
                        lock.acquire(timeout=LOOK_SECONDS)
