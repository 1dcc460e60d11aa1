"""Pulling entries of the store from a registry."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import RegistryError, StoreDamaged, StoreFull
from pytest_vmsnap.host import MORE_ROOM
from pytest_vmsnap.registry.artifact import (
    TRAVELLING,
    config_digest,
    content_of,
    digest_of,
    parse_config,
    tag_of,
)
from pytest_vmsnap.registry.find import find
from pytest_vmsnap.registry.pieces import unpack
from pytest_vmsnap.store import Fetched, checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pytest_vmsnap.progress import Progress, Step
    from pytest_vmsnap.registry.artifact import EntryInRegistry, FileInRegistry, Need, Piece
    from pytest_vmsnap.registry.protocol import Registry
    from pytest_vmsnap.store import EntryName, Store

log = logging.getLogger("pytest_vmsnap.registry")

AT_ONCE = 4  # pieces
JOURNAL = "pieces"  # in a partial entry: the digests of those that are written, one on a line
FILES = "files"
SMALL = 4 << 20  # bytes; of a smaller file the store takes the checksum itself


class Puller:
    """A source of a store: what is missing there, `client`'s registry may have.

    `accept` is called with an entry's name, what it needs, and its directory, before it becomes part of the
    store, and raises `StoreDamaged` if it cannot be used. `pinned` are the digests that the manifests must
    have, by tag; with them, nothing else is pulled. With `build_instead`, a failure is a line of `progress`,
    and the caller builds; else it is an error.
    """

    def __init__(
        self,
        store: Store,
        client: Registry,
        *,
        progress: Progress,
        accept: Callable[[EntryName, Sequence[EntryName], Path], None],
        pinned: Mapping[str, str] | None,
        build_instead: bool = True,
    ) -> None:
        self._store = store
        self._client = client
        self._progress = progress
        self._accept = accept
        self._pinned = pinned
        self._build_instead = build_instead
        self._lost = False  # the registry, for this run
        self._wanted: dict[EntryName, str] = {}  # manifests by what needs them
        self.pulled: list[EntryName] = []
        self.received = 0  # bytes

    def fetch(self, name: EntryName, draft: Path, what: str) -> Fetched | None:
        """Fill `draft` with the entry `name`; None if the registry does not have it, or it cannot be used."""
        if name.kind not in TRAVELLING or self._lost:
            return None
        try:
            return self._fetch(name, draft, what)
        except (RegistryError, StoreDamaged) as error:
            if not self._build_instead or name in self._wanted:
                raise  # what needs it reports it
            self._empty(draft)
            self._lost = isinstance(error, RegistryError) and error.is_lost
            log.warning("%s cannot be pulled: %s", name, error)
            self._progress.say(f"the {what} cannot be pulled, and will be built: {error.message}")
            if error.hint:
                self._progress.say(error.hint)
            return None

    def _fetch(self, name: EntryName, draft: Path, what: str) -> Fetched | None:
        wanted, tag = self._wanted.get(name), tag_of(name)
        pin = self._pinned.get(tag) if self._pinned is not None else None
        if self._pinned is not None and pin is None:
            log.info("%s is not pulled: the lock file does not list it", tag)
            return None
        if pin and wanted and pin != wanted:
            raise RegistryError(f"{tag} must have the digest {pin}, which the lock file says, not {wanted}")
        reference = pin or wanted or tag
        manifest = self._client.manifest(reference)
        if manifest is None:
            if reference == tag:
                return None
            raise RegistryError(f"{self._client.address} does not have {reference}, which {name} must be")
        config = self._client.blob(*config_digest(manifest))
        entry = parse_config(config, name)
        for need in entry.needs:
            self._provide(need, entry)
        with self._progress.step(f"pulling the {what} from {self._client.address}") as step:
            partial = self._store.partial / f"{tag_of(name)}-{digest_of(config)[7:23]}"
            download = _Download(self._client, entry, partial, step)
            download.run()
            self.received += download.received
            for file in entry.files:
                target = draft / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                (partial / FILES / file.name).rename(target)
                target.chmod(file.mode or 0o400)
            shutil.rmtree(partial, ignore_errors=True)
            needs = tuple(need.name for need in entry.needs)
            self._accept(name, needs, draft)
        self.pulled.append(name)
        known = {file.name: file.checksum for file in entry.files if file.size > SMALL}
        return Fetched(needs=needs, checksums=known)

    def made_from(self, state: str) -> tuple[EntryName, Mapping[str, str]] | None:
        """The entry that was pushed last as `state`, and what it was made from; None without one."""
        try:
            if self._lost or (name := find(self._client, state)) is None:
                return None
            manifest = self._client.manifest(tag_of(name))
            if manifest is None:
                return None
            return name, parse_config(self._client.blob(*config_digest(manifest)), name).description.made_from
        except RegistryError as error:
            log.info("what %s was made from is not known: %s", state, error)
            return None

    def _provide(self, need: Need, above: EntryInRegistry) -> None:
        """See that the store has what an entry was built on, with the same content."""
        title = above.description.title

        def refuse(draft: Path) -> None:  # noqa: ARG001 - as a store calls it
            raise RegistryError(f"{self._client.address} does not have {need.name}, which {title} needs")

        self._wanted[need.name] = need.digest
        try:
            place = self._store.provide(need.name.kind, need.name.key, str(need.name), refuse)
        finally:
            del self._wanted[need.name]
        if content_of(place, need.name) != need.content:
            raise RegistryError(
                f"{title} was built on other content of {need.name} than the store {self._store.path} has"
            )

    @staticmethod
    def _empty(draft: Path) -> None:
        for path in draft.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


class _Download:
    """The pieces of one entry on their way to the directory `partial`, which may have some of them already."""

    def __init__(self, client: Registry, entry: EntryInRegistry, partial: Path, step: Step) -> None:
        self._client = client
        self._entry = entry
        self._partial = partial
        self._lock = threading.Lock()
        self._size = sum(piece.size for piece in entry.pieces)
        self.received = 0
        step.follow(lambda: f"{self.received >> 20} of {self._size >> 20} MB")

    def run(self) -> None:
        """Fetch what is missing; what a broken-off run fetched is checked, and used."""
        done = self._before()
        self._expect_space(done)
        (self._partial / FILES).mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._partial / JOURNAL).open("a") as journal:
            for file in self._entry.files:
                self._file(file, done, journal)
        if done:
            self._check()

    def _before(self) -> set[str]:
        with suppress(OSError):
            return set((self._partial / JOURNAL).read_text().split())
        return set()

    def _file(self, file: FileInRegistry, done: set[str], journal: object) -> None:
        path = self._partial / FILES / file.name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        pool = ThreadPoolExecutor(AT_ONCE, "vmsnap-pull")
        try:
            os.ftruncate(descriptor, file.size)
            places = [
                (piece, f"{file.name}:{number}:{piece.digest}") for number, piece in enumerate(file.pieces)
            ]
            missing = [(piece, mark) for piece, mark in places if mark not in done]
            running = {pool.submit(self._piece, piece, descriptor, file.size): mark for piece, mark in missing}
            for each in as_completed(running):
                each.result()
                print(running[each], file=journal, flush=True)  # type: ignore[call-overload]
        finally:
            pool.shutdown(cancel_futures=True)
            os.close(descriptor)

    def _piece(self, piece: Piece, descriptor: int, size: int) -> None:
        data = self._client.blob(piece.digest, piece.size)
        unpack(data, piece.length, descriptor, size)
        with self._lock:
            self.received += len(data)

    def _check(self) -> None:
        """Prove that files which came in several runs are whole: a host may have lost power in between."""
        for file in self._entry.files:
            if checksum(self._partial / FILES / file.name) != file.checksum:
                shutil.rmtree(self._partial, ignore_errors=True)
                raise RegistryError(
                    f"{file.name} of {self._entry.description.title}, pulled in several parts, is not whole"
                )

    def _expect_space(self, done: set[str]) -> None:
        needed = sum(piece.length for file in self._entry.files for piece in file.pieces)
        if done:
            return  # a part of it is on the disk already
        free = shutil.disk_usage(self._partial.parent).free
        if needed > free:
            raise StoreFull(
                f"not enough space for {self._entry.description.title} in {self._partial.parent}: "
                f"it needs {needed >> 20} MiB, {free >> 20} MiB are free",
                hint=MORE_ROOM,
            )
