"""Machines of failed tests, kept as they are.

A kept machine is a small store within the store: its snapshot, and hard links to everything that it needs. So
it can be opened after its state was rebuilt or removed, and what it shares with others takes no space.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from pytest_vmsnap import fork, states
from pytest_vmsnap.errors import StoreDamaged, StoreError
from pytest_vmsnap.fork import ClusterSnapshot, LayeredMemory, Snapshot
from pytest_vmsnap.model import digest
from pytest_vmsnap.progress import silent
from pytest_vmsnap.store import Damage, EntryName, Store, damage_of, entry_usages, link_entries, link_or_copy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.fork import Saved, SavedMemory
    from pytest_vmsnap.model import Image, Keep
    from pytest_vmsnap.pool import Allocation, Savepoint
    from pytest_vmsnap.store import EntryUsage

log = logging.getLogger("pytest_vmsnap.evidence")

NOTE = "kept.json"
DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is noted about a kept machine.

    `title` names it on the command line: the test, or the name that a person gave it. `label` says which of the
    test's machines it is (``vm``, ``vm_module``), `state` which state it started from, `why` in one line why it
    was kept. `session` is the same for all workers of one run, `when` is in seconds since the epoch. `outside`
    lists the files that it needs and that are not in the store: path, size in bytes, last change (ns).
    """

    title: str
    label: str
    state: str
    why: str = ""
    project: str = ""
    session: str = ""
    when: float = 0.0
    outside: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A kept machine: its note, and the space that it takes."""

    note: Note
    usage: EntryUsage

    @property
    def key(self) -> str:
        return self.usage.name.key


class Keeper:
    """Keeps machines in `store`: the first `most` of a `session`, which all workers of a run share."""

    def __init__(self, store: Store, *, session: str, most: Keep, project: Path) -> None:
        self._store = store
        self._session = session
        self._most = most
        self._project = project

    def keep(self, allocation: Allocation[Any], note: Note) -> Kept | None:
        """Save a machine as it is, and keep it; return None if enough are kept already.

        The machine keeps running. Raises `StoreFull`, `StoreDamaged`, `GuestGone`, `HostError`.
        """
        with FileLock(self._store.path / "locks" / "keep.lock", mode=0o600):
            if self._most != "failed" and self._count() >= self._most:
                return None
            savepoint = allocation.save_as_is()
            try:
                note = replace(note, session=self._session, project=str(self._project))
                return keep(savepoint, note, source=self._store, target=self._store)
            finally:
                allocation.forget(savepoint)

    def _count(self) -> int:
        return sum(each.note.session == self._session for each in kept(self._store))


def keep(savepoint: Savepoint, note: Note, *, source: Store, target: Store) -> Kept:
    """Keep the machine of `savepoint`, which was made from an entry of `source`, in `target`.

    Raises `StoreFull`, `StoreDamaged`.
    """
    note = replace(note, when=time.time(), outside=_outside(savepoint.snapshot, source))
    fields = dataclasses.asdict(note)
    key = digest(fields)

    def build(draft: Path) -> None:
        _fill(Store(draft, progress=silent()), key, savepoint, note, source)
        (draft / NOTE).write_text(json.dumps(fields, indent=1) + "\n")

    target.provide("kept", key, f"machine of {note.title}", build)
    target.pins.remove(EntryName(kind="kept", key=key))  # this run does not use it, so `trim` may remove it
    return next(each for each in kept(target) if each.key == key)


def kept(store: Store) -> list[Kept]:
    """Return all kept machines, the oldest first; one that cannot be read is left out."""
    found = []
    for usage in entry_usages(store, "kept"):
        try:
            fields = json.loads((store.place(usage.name) / NOTE).read_text())
            outside = tuple((path, size, changed) for path, size, changed in fields.pop("outside"))
            found.append(Kept(note=Note(**fields, outside=outside), usage=usage))
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("%s cannot be read: %s", usage.name, error)
    return sorted(found, key=lambda each: each.note.when)


def trim(store: Store, *, limit_mib: int, days: int) -> list[Kept]:
    """Remove machines older than `days`, and the oldest ones beyond `limit_mib` MiB; return the removed ones.

    A machine that a run uses stays. The limit does not remove the newest one.
    """
    everything = kept(store)
    excess = sum(each.usage.size for each in everything) - (limit_mib << 20)
    oldest = time.time() - days * DAY_SECONDS
    gone = []
    for each in everything:
        too_much = excess > 0 and each is not everything[-1]
        if (too_much or each.note.when < oldest) and store.remove(each.usage.name, unless_used=True):
            gone.append(each)
            excess -= each.usage.size
    return gone


def store_of(store: Store, each: Kept) -> Store:
    """Return the small store of a kept machine of `store`, and claim the machine for this run.

    Raises `StoreDamaged` if it is gone, or if a file outside the store that it needs has changed.
    """
    store.pins.add(each.usage.name)
    place = store.place(each.usage.name)
    if not place.is_dir():
        raise StoreDamaged(f"the kept machine of {each.note.title} was removed meanwhile")
    for noted in each.note.outside:
        if not Path(noted[0]).exists() or _size_and_time(Path(noted[0])) != noted:
            raise StoreDamaged(
                f"{noted[0]}, which the kept machine of {each.note.title} needs, is missing or was changed"
            )
    return Store(place, progress=silent())


def damage_of_kept(store: Store, each: Kept) -> Damage | None:
    """Read all files of a kept machine of `store`; return what is wrong with it, or None."""
    place = store.place(each.usage.name)
    try:
        found = damage_of(Store(place, progress=silent()), name_of(each))
    except StoreError as error:
        return Damage(name=each.usage.name, what=error.message, inode=None)
    what = "; ".join(damage.what for damage in found)
    return Damage(name=each.usage.name, what=what, inode=None) if found else None


def name_of(each: Kept) -> EntryName:
    """Return the entry of a kept machine's snapshot in its small store."""
    return EntryName(kind=states.KIND, key=each.key)


def _fill(small: Store, key: str, savepoint: Savepoint, note: Note, source: Store) -> None:
    """Put what was saved at `savepoint` into the empty store `small` as the state `key`, with all it needs."""
    chain = [each.snapshot for each in _chain(savepoint)]
    if not isinstance(saved := savepoint.snapshot, ClusterSnapshot):
        _fill_machine(small, key, [each for each in chain if isinstance(each, Snapshot)], note, source)
        return
    clusters = [each for each in chain if isinstance(each, ClusterSnapshot)]
    keys = {name: digest({"kept": key, "machine": name}) for name in saved.machines}
    for name, member in keys.items():
        titled = replace(note, title=f"{note.title}/{name}")
        _fill_machine(small, member, [each.machines[name] for each in clusters], titled, source)
    about = replace(
        states.origin_of(source.place(EntryName(kind=states.KIND, key=clusters[-1].directory.name))),
        name=note.title,
        created=note.when,
    )
    small.provide(
        states.KIND,
        key,
        note.title,
        lambda draft: states.seal_cluster(draft, keys, saved.faults, about),
        depends_on=[EntryName(kind=states.KIND, key=member) for member in keys.values()],
    )


def _fill_machine(small: Store, key: str, chain: list[Snapshot], note: Note, source: Store) -> None:
    """Put the first of `chain` into `small`; the rest is what it was made on, down to an entry of `source`."""
    saved, origin, later = chain[0], chain[-1], chain[-2::-1]
    state = EntryName(kind=states.KIND, key=origin.directory.name)
    link_entries(source, state, small)
    image = _linked(saved.image, source, small)

    def build(draft: Path) -> None:
        disks = tuple(small.place(state) / disk.name for disk in origin.disks)
        for number, each in enumerate(later):
            disks = tuple(
                fork.copy_onto(disk, draft / f"{number}-{disk.name}", backing=backing)
                for disk, backing in zip(each.disks, disks, strict=True)
            )
        devices = draft / saved.devices.name
        link_or_copy(saved.devices, devices)
        memory = _memory(saved, origin, draft)
        about = states.origin_of(source.place(state))
        about = replace(about, name=note.title, parent=state.key, created=note.when)
        snapshot = replace(
            saved,
            directory=draft,
            disks=disks,
            devices=devices,
            memory=memory,
            image=image,
        )
        states.seal(small, draft, snapshot, about)
        for path in (*disks, devices):
            path.chmod(0o400)

    small.provide(states.KIND, key, note.title, build, depends_on=[state])


def _chain(savepoint: Savepoint) -> Iterator[Savepoint]:
    """Yield the savepoint, and those that its disks are layers on, down to the state."""
    each: Savepoint | None = savepoint
    while each:
        yield each
        each = each.below


def _memory(snapshot: Snapshot, origin: Snapshot, draft: Path) -> LayeredMemory:
    """Return the memory of `snapshot`, with its layers above that of `origin` in `draft`."""
    found: list[Path] = []
    memory: SavedMemory | None = snapshot.memory
    while isinstance(memory, LayeredMemory) and memory is not origin.memory:
        found[:0] = memory.layers
        memory = memory.below
    layers = []
    for number, pages in enumerate(found):
        layers.append(draft / f"pages{number}")
        layers[-1].mkdir(mode=0o700)
        for path in pages.iterdir():
            link_or_copy(path, layers[-1] / path.name)
    size = snapshot.spec.memory << 20
    return LayeredMemory(below=memory, layers=tuple(layers), size=size, provide=lambda _: draft)


def _linked(image: Image, source: Store, small: Store) -> Image:
    """Return `image` with those of its files in `small` that were in `source`."""

    def linked(path: Path | None) -> Path | None:
        if path is None or not path.is_relative_to(source.path):
            return path
        target = small.path / path.relative_to(source.path)
        if not target.exists():  # a state names only what its disks are based on
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            link_or_copy(path, target)
        return target

    return replace(
        image,
        disk=linked(image.disk),
        kernel=linked(image.kernel),
        initrd=linked(image.initrd),
        modules=linked(image.modules),
    )


def _outside(snapshot: Saved, source: Store) -> tuple[tuple[str, int, int], ...]:
    images = [member.image for member in snapshot.members]
    paths = {
        path for image in images for path in (image.disk, image.kernel, image.initrd, image.modules) if path
    }
    return tuple(_size_and_time(path) for path in sorted(paths) if not path.is_relative_to(source.path))


def _size_and_time(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    return str(path), found.st_size, found.st_mtime_ns
