"""The store's directory, and the making of its entries."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock, Timeout

from pytest_vmsnap.errors import StoreError, StoreFormat, StoreFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vmsnap.progress import Progress

FORMAT = "1"
Kind = Literal["images", "downloads"]


class Store:
    """A directory of entries, each named by a key of its content.

    An entry appears by one rename of a complete directory; while one is built, a lock on its key keeps
    others waiting. Directories have mode 0700, for what they hold may be secret.

    Raises `StoreError` where the directory cannot be used, `StoreFormat` where another version wrote it.
    """

    def __init__(self, path: Path, *, progress: Progress) -> None:
        self.path = path
        self._progress = progress
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in ("images", "downloads", "locks", "runs"):
                (path / name).mkdir(exist_ok=True, mode=0o700)
            self._check_format()
        except OSError as error:
            raise StoreError(
                f"the store {path} cannot be used: {error.strerror}",
                hint="choose another directory with --vmsnap-store (VMSNAP_STORE, vmsnap_store)",
            ) from error

    def _check_format(self) -> None:
        mark = self.path / "format"
        try:
            found = mark.read_text().strip()
        except FileNotFoundError:
            mark.write_text(FORMAT + "\n")
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

    def provide(self, kind: Kind, key: str, what: str, build: Callable[[Path], None]) -> Path:
        """The entry's directory; if there is none yet, `build` fills a new directory that becomes it.

        `what` names it to the person who waits, e.g. ``"image debian:trixie"``. Of several runs that ask at
        once, one builds and the others wait. Whatever `build` raises leaves nothing behind.

        Raises `StoreFull` where the space ended while it was built.
        """
        if found := self.entry(kind, key):
            return found
        with self._building(kind, key, what):
            if found := self.entry(kind, key):
                return found
            return self._build(self.path / kind / key, what, build)

    def _build(self, path: Path, what: str, build: Callable[[Path], None]) -> Path:
        for half in path.parent.glob(f".{path.name}.*"):  # we hold the lock: whoever began these is gone
            shutil.rmtree(half, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            build(draft)
            draft.rename(path)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                free = shutil.disk_usage(self.path).free >> 20
                raise StoreFull(
                    f"no space left for {what} in the store {self.path} ({free} MiB free)",
                    hint="free some space, or choose another directory with --vmsnap-store",
                ) from error
            raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return path

    @contextmanager
    def _building(self, kind: Kind, key: str, what: str) -> Iterator[None]:
        lock = FileLock(self.path / "locks" / f"{kind}-{key}.lock", mode=0o600)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            with self._progress.step(f"waiting for another run that makes the {what}"):
                lock.acquire()
        try:
            os.utime(lock.lock_file)
            yield
        finally:
            lock.release()
