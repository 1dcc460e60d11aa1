"""Pushing entries of the store to a registry."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import FileLock

from pytest_vmsnap.errors import RegistryError, StoreDamaged
from pytest_vmsnap.registry.artifact import (
    MOST_SOURCES,
    TRAVELLING,
    Description,
    EntryInRegistry,
    FileInRegistry,
    Need,
    Part,
    Piece,
    Source,
    content_of,
    digest_of,
    padded,
    tag_of,
)
from pytest_vmsnap.registry.find import digest_in_registry, entry_at
from pytest_vmsnap.registry.known_pages import KnownPages
from pytest_vmsnap.registry.pieces import PIECE_BYTES, packed, packed_data, spans
from pytest_vmsnap.store import MARKS, EntryName, checksum, closure, needs_of, read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_vmsnap.progress import Progress, Step
    from pytest_vmsnap.registry.pieces import PackedPiece
    from pytest_vmsnap.registry.protocol import Registry
    from pytest_vmsnap.store import Store

AT_ONCE = 4  # pieces
SMALL = 1 << 20  # bytes; smaller files are joined
DISK = "disk"  # how the names of a disk's files begin


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push did for one entry: the `digest` of its manifest, and the `sent` bytes, 0 if it was there."""

    name: EntryName
    digest: str
    sent: int


def push(
    store: Store,
    registry: Registry,
    name: EntryName,
    *,
    describe: Callable[[EntryName], Description],
    progress: Progress,
) -> list[Pushed]:
    """Push the entry `name` and everything that it needs; what the registry has is not sent again.

    `describe` says what a person is told of an entry. If several processes push the same entry, one sends it.
    Raises `RegistryError` if the registry does not take it, `StoreDamaged` if an entry is not what was saved.
    """
    names = closure(store.path, name)
    for each in names:
        if each.kind not in TRAVELLING:
            raise RegistryError(
                f"the {describe(name).title} cannot be pushed: it needs {each}, which only this host has"
            )
        store.pins.add(each)
    done: dict[EntryName, Pushed] = {}
    while rest := [each for each in names if each not in done]:
        ready = [each for each in rest if all(below in done for below in needs_of(store.path, each))]
        for each in ready:
            with FileLock(store.path / "locks" / f"push-{tag_of(each)}.lock", mode=0o600):
                done[each] = _push_one(store, registry, each, done, describe(each), progress)
    return [done[each] for each in names]


def _push_one(
    store: Store,
    registry: Registry,
    name: EntryName,
    below: dict[EntryName, Pushed],
    description: Description,
    progress: Progress,
) -> Pushed:
    if there := digest_in_registry(store, registry, name):
        _, found = entry_at(registry, there) or (there, None)
        if found:
            _tag(registry, found, there)
        return Pushed(name=name, digest=there, sent=0)
    with progress.step(f"pushing the {description.title}") as step, KnownPages() as known:
        pushing = _Pushing(registry, step, store, name, known)
        parts = pushing.run()
        needs = tuple(
            Need(name=each, content=content_of(store.place(each)), digest=below[each].digest)
            for each in needs_of(store.path, name)
        )
        found = EntryInRegistry(
            name=name, description=description, needs=needs, parts=parts, sources=tuple(pushing.sources)
        )
        config = found.config()
        registry.put(digest_of(config), config)
        digest = digest_of(found.manifest())
        _tag(registry, found, digest)
    return Pushed(name=name, digest=digest, sent=pushing.sent)


def _tag(registry: Registry, entry: EntryInRegistry, digest: str) -> None:
    """Give the entry its tags, those that it does not have."""
    manifest = entry.manifest()
    if digest_of(manifest) != digest:
        return  # another version wrote it
    for tag in entry.tags:
        there = registry.manifest(tag)
        if there is None or digest_of(there) != digest:
            registry.put_manifest(tag, manifest)


class _Pushing:
    """The files of one entry on their way: the bytes that were `sent`, and the `sources` of copies."""

    def __init__(
        self, registry: Registry, step: Step, store: Store, name: EntryName, known: KnownPages
    ) -> None:
        self._registry = registry
        self._store = store
        self._name = name
        self._entry = store.place(name)
        self._noted = read_manifest(self._entry)
        self._known = known
        self.sources: list[Source] = []
        self.sent = 0
        step.follow(lambda: f"{self.sent / 1e6:.0f} MB sent")

    def run(self) -> tuple[Part, ...]:
        """Send what the registry lacks; returns the parts of the entry."""
        pool = ThreadPoolExecutor(AT_ONCE, "vmsnap-push")
        try:
            files = [self._file(name) for name in files_of(self._entry)]
            if sum(file.size for file in files) >= SMALL:  # not if it has little but references to others
                self._add_sources_below()
            parts = []
            for file in files:
                if file.size >= SMALL:
                    parts.append(self._large(file, pool))
                    self._add_source(self._name, file.name)
            joined = list(_joined([file for file in files if file.size < SMALL]))
            parts += pool.map(self._small, joined)
        finally:
            pool.shutdown(cancel_futures=True)
        return tuple(parts)

    def _add_sources_below(self) -> None:
        """Let pieces copy from what the entry was built on.

        Raises `StoreDamaged` if a disk there is not what was saved: nobody else could use the copies.
        """
        for below in closure(self._store.path, self._name):
            if below == self._name:
                continue
            place = self._store.place(below)
            for name in files_of(place):
                if self._add_source(below, name):
                    _expect_unchanged(place / name, read_manifest(place)[name].checksum)

    def _add_source(self, entry: EntryName, name: str) -> bool:
        """Let further pieces copy from the file `name` of `entry`, if it is a disk; returns whether it is."""
        path = self._store.place(entry) / name
        is_source = name.startswith(DISK) and path.stat().st_size >= SMALL and len(self.sources) < MOST_SOURCES
        if is_source:
            self._known.add(path)
            self.sources.append(Source(entry=entry, file=name))
        return is_source

    def _file(self, name: str) -> FileInRegistry:
        """The file `name`; raises `StoreDamaged` if it is not what was saved, before others get it."""
        path = self._entry / name
        found, noted = path.stat(), self._noted[name].checksum
        if noted is None:
            raise StoreDamaged(f"{path} has no checksum, so its content cannot be checked")
        _expect_unchanged(path, noted)
        return FileInRegistry(name=name, size=found.st_size, mode=found.st_mode & 0o600, checksum=noted)

    def _large(self, file: FileInRegistry, pool: ThreadPoolExecutor) -> Part:
        path = self._entry / file.name
        pieces = pool.map(lambda span: self._piece(packed(path, span, self._known)), spans(path))
        return Part(files=(file,), pieces=tuple(piece for piece in pieces if piece))

    def _small(self, files: tuple[FileInRegistry, ...]) -> Part:
        part = Part(files=files, pieces=())
        piece = self._piece(
            packed_data(
                ((at, (self._entry / file.name).read_bytes()) for file, at in part.places()), self._known
            )
        )
        return Part(files=files, pieces=(piece,) if piece else ())

    def _piece(self, found: PackedPiece | None) -> Piece | None:
        if found is None:
            return None
        digest = digest_of(found.data)
        if self._registry.put(digest, found.data):
            self.sent += len(found.data)
        return Piece(digest=digest, size=len(found.data), length=found.length, copied=found.copied)


def _expect_unchanged(path: Path, noted: int | None) -> None:
    if checksum(path) != noted:
        raise StoreDamaged(f"the content of {path} changed after it was saved")


def _joined(files: list[FileInRegistry]) -> Iterator[tuple[FileInRegistry, ...]]:
    """Small files in groups that a piece has room for."""
    group: list[FileInRegistry] = []
    size = 0
    for file in files:
        if group and size + padded(file.size) > PIECE_BYTES:
            yield tuple(group)
            group, size = [], 0
        group.append(file)
        size += padded(file.size)
    if group:
        yield tuple(group)


def files_of(entry: Path) -> list[str]:
    """The names of the files of an entry that a registry gets."""
    return sorted(name for name in read_manifest(entry) if name not in MARKS)
