"""Pushing entries of the store to a registry."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import RegistryError
from pytest_vmsnap.registry.artifact import (
    MARKS,
    TRAVELLING,
    Description,
    EntryInRegistry,
    FileInRegistry,
    Need,
    Piece,
    config_digest,
    content_of,
    digest_of,
    parse_config,
    tag_of,
    tag_of_title,
)
from pytest_vmsnap.registry.pieces import packed, spans
from pytest_vmsnap.store import checksum, closure, needs_of, read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_vmsnap.progress import Progress, Step
    from pytest_vmsnap.registry.protocol import Registry
    from pytest_vmsnap.store import EntryName, Store

AT_ONCE = 4  # pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push did for one entry: the `digest` of its manifest, and the `sent` bytes, 0 if it was there."""

    name: EntryName
    digest: str
    sent: int


def push(
    store: Store,
    client: Registry,
    name: EntryName,
    *,
    describe: Callable[[EntryName], Description],
    progress: Progress,
) -> list[Pushed]:
    """Push the entry `name` and everything that it needs; what the registry has is not sent again.

    `describe` says what a person is told of an entry. Raises `RegistryError` if the registry does not take it,
    `StoreDamaged` if an entry is incomplete.
    """
    names = closure(store.path, name)
    for each in names:
        if each.kind not in TRAVELLING:
            raise RegistryError(
                f"{describe(name).title} cannot be pushed: it was made with {each}, which is only of this host"
            )
        store.pins.add(each)
    done: dict[EntryName, Pushed] = {}
    while rest := [each for each in names if each not in done]:
        ready = [each for each in rest if all(below in done for below in needs_of(store.path, each))]
        for each in ready:
            done[each] = _push_one(store, client, each, done, describe(each), progress)
    return [done[each] for each in reversed(names)]


def _push_one(
    store: Store,
    client: Registry,
    name: EntryName,
    below: dict[EntryName, Pushed],
    description: Description,
    progress: Progress,
) -> Pushed:
    entry = store.place(name)
    there = client.manifest(tag_of(name))
    if there is not None and _is_same(client, there, name, entry):
        return Pushed(name=name, digest=digest_of(there), sent=0)
    with (
        progress.step(f"pushing {description.title}") as step,
        ThreadPoolExecutor(AT_ONCE, "vmsnap-push") as pool,
    ):
        pushing = _Pushing(client, step, entry, pool)
        try:
            files = tuple(pushing.file(path) for path in files_of(entry))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        needs = tuple(
            Need(name=each, content=content_of(store.place(each), each), digest=below[each].digest)
            for each in needs_of(store.path, name)
        )
        found = EntryInRegistry(name=name, description=description, needs=needs, files=files)
        config = found.config()
        client.put(digest_of(config), config)
        manifest = found.manifest()
        client.put_manifest(tag_of(name), manifest)
        if by_title := tag_of_title(description.title):
            client.put_manifest(by_title, manifest)
    return Pushed(name=name, digest=digest_of(manifest), sent=pushing.sent)


def files_of(entry: Path) -> list[str]:
    """The names of the files of an entry that a registry gets."""
    found = [str(path.relative_to(entry)) for path in entry.rglob("*") if path.is_file()]
    return sorted(each for each in found if each not in MARKS and not each.startswith("."))


def _is_same(client: Registry, manifest: bytes, name: EntryName, entry: Path) -> bool:
    """Whether the registry has the entry with this content under this manifest."""
    try:
        config = parse_config(client.blob(*config_digest(manifest)), name)
    except RegistryError:
        return False  # it is replaced
    return config.content == content_of(entry, name)


class _Pushing:
    """The pieces of one entry on their way; `sent` is the number of their bytes."""

    def __init__(self, client: Registry, step: Step, entry: Path, pool: ThreadPoolExecutor) -> None:
        self._client = client
        self._step = step
        self._entry = entry
        self._pool = pool
        self._noted = read_manifest(entry) if (entry / "manifest.json").exists() else {}
        self.sent = 0
        step.follow(lambda: f"{self.sent >> 20} MB sent")

    def file(self, name: str) -> FileInRegistry:
        path = self._entry / name
        pieces = self._pool.map(lambda span: self._piece(path, *span), spans(path))
        found = path.stat()
        noted = self._noted[name].checksum if name in self._noted else None
        return FileInRegistry(
            name=name,
            size=found.st_size,
            mode=found.st_mode & 0o600,
            checksum=checksum(path) if noted is None else noted,
            pieces=tuple(piece for piece in pieces if piece),
        )

    def _piece(self, path: Path, start: int, end: int) -> Piece | None:
        if (found := packed(path, start, end)) is None:
            return None
        data, length = found
        digest = digest_of(data)
        if self._client.put(digest, data):
            self.sent += len(data)
        return Piece(digest=digest, size=len(data), length=length)
