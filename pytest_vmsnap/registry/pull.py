"""Pulling entries of the store from a registry."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import RegistryError, StoreDamaged, StoreFull
from pytest_vmsnap.host import MORE_ROOM, NO_ROOM
from pytest_vmsnap.registry.artifact import TRAVELLING, Source, content_of, tag_of
from pytest_vmsnap.registry.find import entry_at, find
from pytest_vmsnap.registry.pieces import unpack
from pytest_vmsnap.store import Fetched, checksum, closure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pytest_vmsnap.progress import Progress, Step
    from pytest_vmsnap.registry.artifact import EntryInRegistry, Need, Part, Piece
    from pytest_vmsnap.registry.protocol import Registry
    from pytest_vmsnap.store import EntryName, SourceTitle, Store

log = logging.getLogger("pytest_vmsnap.registry")

AT_ONCE = 4  # pieces
JOURNAL = "pieces"  # in a partial entry: the pieces that are written, one on a line
REFUSED = "refused"  # in a partial entry: why it is not fetched again
SMALL = 4 << 20  # bytes; of a smaller file the store takes the checksum itself


class Puller:
    """A source of a store: what is missing there, the `registry` may have.

    `accept` is called with an entry's name, what it needs, and its directory, before it becomes part of the
    store, and raises `StoreDamaged` if it cannot be used. `pinned` are the digests that the manifests must
    have, by tag; with them, nothing else is pulled. With `build_instead`, a failure is a line of `progress`,
    and the caller builds; else it is an error.
    """

    title: SourceTitle = "registry"

    def __init__(
        self,
        store: Store,
        registry: Registry,
        *,
        progress: Progress,
        accept: Callable[[EntryName, Sequence[EntryName], Path], None],
        pinned: Mapping[str, str] | None,
        build_instead: bool = True,
    ) -> None:
        self._store = store
        self._registry = registry
        self._progress = progress
        self._accept = accept
        self._pinned = pinned
        self._build_instead = build_instead
        self._lost = False  # the registry, for this run
        self._wanted: dict[EntryName, str] = {}  # the digests of manifests, of what is needed by another entry
        self._under_way: set[EntryName] = set()
        self.received = 0  # bytes

    def fetch(self, name: EntryName, draft: Path, what: str) -> Fetched | None:
        """Fill `draft` with the entry `name`; None if the registry does not have it, or it cannot be used."""
        if name.kind not in TRAVELLING or self._lost:
            return None
        try:
            return self._fetch(name, draft, what)
        except (RegistryError, StoreDamaged) as error:
            trouble = error
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
            trouble = RegistryError(f"{tag_of(name)} of {self._registry.address}: {error}")
        finally:
            self._under_way.discard(name)
        if not self._build_instead or name in self._wanted:
            raise trouble  # what needs it reports it
        self._empty(draft)
        self._lost = isinstance(trouble, RegistryError) and trouble.is_lost
        log.warning("%s cannot be pulled: %s", name, trouble)
        self._progress.say(f"the {what} cannot be pulled, and will be built: {trouble.message}")
        if trouble.hint:
            self._progress.say(trouble.hint)
        return None

    def made_from(self, state: str) -> tuple[EntryName, Mapping[str, str]] | None:
        """The entry that was pushed last as `state`, and what it was made from; None without one.

        Raises `RegistryError`.
        """
        if self._lost or (found := find(self._registry, state)) is None:
            return None
        return found.name, found.description.made_from

    def _fetch(self, name: EntryName, draft: Path, what: str) -> Fetched | None:
        wanted, tag = self._wanted.get(name), tag_of(name)
        pin = self._pinned.get(tag) if self._pinned is not None else None
        if self._pinned is not None and pin is None:
            log.info("%s is not pulled: the lock file does not list it", tag)
            return None
        if pin and wanted and pin != wanted:
            raise RegistryError(f"{tag} must have the digest {pin} (vmsnap.lock), not {wanted}")
        reference = pin or wanted or tag
        found = entry_at(self._registry, reference)
        if found is None:
            if reference == tag:
                return None
            raise RegistryError(
                f"{self._registry.address} does not have {reference}, the digest that {tag} must have"
            )
        digest, entry = found
        if entry.name != name:
            raise RegistryError(f"{tag} of {self._registry.address}: it is {entry.name} under another name")
        partial = self._store.partial / f"{tag}-{digest[7:23]}"
        with suppress(FileNotFoundError):
            raise StoreDamaged(f"it was refused before: {(partial / REFUSED).read_text()}")
        self._under_way.add(name)
        for need in entry.needs:
            self._provide(need, entry)
        with self._progress.step(f"pulling the {what} from {self._registry.address}") as step:
            download = _Download(self._registry, entry, partial, self._files_below(entry), step)
            download.run(draft)
            self.received += download.received
        needs = tuple(need.name for need in entry.needs)
        try:
            self._accept(name, needs, draft)
        except StoreDamaged as error:
            partial.mkdir(mode=0o700, exist_ok=True)
            (partial / REFUSED).write_text(error.message)
            raise
        known = {file.name: file.checksum for file in entry.files if file.size > SMALL}
        return Fetched(needs=needs, checksums=known)

    def _provide(self, need: Need, above: EntryInRegistry) -> None:
        """See that the store has what an entry was built on, with the same content."""
        if need.name in self._under_way:
            raise RegistryError(f"the {above.title} needs {need.name}, which needs it")

        def refuse(draft: Path) -> None:  # noqa: ARG001 - as a store calls it
            raise RegistryError(
                f"{self._registry.address} does not have {need.name}, which {above.title} needs"
            )

        self._wanted[need.name] = need.digest
        try:
            place = self._store.provide(need.name.kind, need.name.key, str(need.name), refuse)
        finally:
            del self._wanted[need.name]
        if content_of(place) != need.content:
            raise RegistryError(
                f"the {above.title} was built on other content of {need.name} than is in the store"
            )

    def _files_below(self, entry: EntryInRegistry) -> dict[Source, Path]:
        """Where the sources are that belong to what `entry` was built on."""
        below = {each for need in entry.needs for each in closure(self._store.path, need.name)}
        return {
            source: self._store.place(source.entry) / source.file
            for source in entry.sources
            if source.entry in below
        }

    @staticmethod
    def _empty(draft: Path) -> None:
        for path in draft.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


class _Download:
    """The pieces of one entry on their way to the directory `partial`, which may have some of them already.

    `below` are the sources of what the entry was built on.
    """

    def __init__(
        self,
        registry: Registry,
        entry: EntryInRegistry,
        partial: Path,
        below: Mapping[Source, Path],
        step: Step,
    ) -> None:
        self._registry = registry
        self._entry = entry
        self._partial = partial
        self._below = below
        self._lock = threading.Lock()
        self._size = sum(piece.size for part in entry.parts for piece in part.pieces)
        self.received = 0
        step.follow(lambda: f"{self.received / 1e6:.0f} of {self._size / 1e6:.0f} MB")

    def run(self, draft: Path) -> None:
        """Fetch what is missing, and move all into `draft`; what an earlier run fetched is checked and used."""
        done = self._before()
        if not done:
            self._expect_space()
        self._partial.mkdir(parents=True, exist_ok=True, mode=0o700)
        with ExitStack() as stack:
            journal = stack.enter_context((self._partial / JOURNAL).open("a"))
            sources = [self._opened(self._below.get(source), stack) for source in self._entry.sources]
            for number, part in enumerate(self._entry.parts):
                self._part(number, part, done, journal, sources)
                own = Source(entry=self._entry.name, file=part.files[0].name)
                if len(part.files) == 1 and own in self._entry.sources:
                    at = self._entry.sources.index(own)
                    sources[at] = self._opened(self._partial / str(number), stack)
        (self._partial / JOURNAL).unlink()
        for number, part in enumerate(self._entry.parts):
            self._move(number, part, draft)
        shutil.rmtree(self._partial)
        self._check(draft, resumed=bool(done))

    def _before(self) -> set[str]:
        with suppress(OSError):
            return set((self._partial / JOURNAL).read_text().split())
        shutil.rmtree(self._partial, ignore_errors=True)  # without a journal, it is of no use
        return set()

    @staticmethod
    def _opened(path: Path | None, stack: ExitStack) -> int | None:
        """A descriptor of the file at `path`, for as long as `stack` has it; None if there is no such file."""
        if path is None or not path.is_file():
            return None
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        stack.callback(os.close, descriptor)
        return descriptor

    def _part(
        self, number: int, part: Part, done: set[str], journal: object, sources: list[int | None]
    ) -> None:
        size = part.size
        descriptor = os.open(self._partial / str(number), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        pool = ThreadPoolExecutor(AT_ONCE, "vmsnap-pull")
        with ExitStack() as stack:
            stack.callback(os.close, descriptor)
            stack.callback(pool.shutdown, cancel_futures=True)
            os.ftruncate(descriptor, size)
            marked = {f"{number}:{place}": piece for place, piece in enumerate(part.pieces)}
            missing = {mark: piece for mark, piece in marked.items() if mark not in done}
            running = {
                pool.submit(self._piece, piece, descriptor, size, sources): mark
                for mark, piece in missing.items()
            }
            for each in as_completed(running):
                each.result()
                print(running[each], file=journal, flush=True)  # type: ignore[call-overload]

    def _piece(self, piece: Piece, descriptor: int, size: int, sources: list[int | None]) -> None:
        data = self._registry.blob(piece.digest, piece.size)
        unpack(data, piece.length, descriptor, size, copied=piece.copied, sources=sources)
        with self._lock:
            self.received += len(data)

    def _move(self, number: int, part: Part, draft: Path) -> None:
        """Move the files of `part` to `draft`."""
        source = self._partial / str(number)
        if len(part.files) == 1:
            self._place(draft, part.files[0].name).unlink(missing_ok=True)
            source.rename(draft / part.files[0].name)
        else:
            with source.open("rb") as reading:
                for file, at in part.places():
                    reading.seek(at)
                    self._place(draft, file.name).write_bytes(reading.read(file.size))
        for file in part.files:
            (draft / file.name).chmod(file.mode or 0o400)

    @staticmethod
    def _place(draft: Path, name: str) -> Path:
        (draft / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return draft / name

    def _check(self, draft: Path, *, resumed: bool) -> None:
        """Prove that files are whole that came in several runs, or that have copies.

        A host may have lost power between the runs; what is copied may differ from what was pushed.
        """
        for part in self._entry.parts:
            if not resumed and not any(piece.copied for piece in part.pieces):
                continue
            for file in part.files:
                if checksum(draft / file.name) != file.checksum:
                    raise RegistryError(
                        f"{file.name} of the {self._entry.title} is not whole: it was pulled in several parts,"
                        " or what it was built on has changed",
                        hint="vmsnap verify finds what is damaged in the store",
                    )

    def _expect_space(self) -> None:
        needed = sum(piece.length + piece.copied for part in self._entry.parts for piece in part.pieces)
        free = shutil.disk_usage(self._partial.parent).free
        if needed > free:
            raise StoreFull(
                f"not enough space for the {self._entry.title} in {self._partial.parent}: "
                f"it needs {needed >> 20} MiB, {free >> 20} MiB are free",
                hint=MORE_ROOM,
            )
