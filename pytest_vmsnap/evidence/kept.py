"""Machines of failed tests, kept as they are.

A kept machine is a small store of its own within the store: the snapshot, and hard links to all that it was
made on. So it opens after its state was made anew or removed, and what it shares with others takes no space.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from pytest_vmsnap import fork, states
from pytest_vmsnap.errors import StoreDamaged, StoreError
from pytest_vmsnap.fork import LayeredMemory
from pytest_vmsnap.model import digest
from pytest_vmsnap.progress import silent
from pytest_vmsnap.store import Damage, Name, Store, damage_of, holdings, link_entries, link_or_copy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.fork import SavedMemory, Snapshot
    from pytest_vmsnap.model import Image, Keep
    from pytest_vmsnap.pool import Moment, Tenancy
    from pytest_vmsnap.store import Holding

log = logging.getLogger("pytest_vmsnap.evidence")

NOTE = "kept.json"
DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a kept machine is of.

    `title` is what names it on the command line: the test, or what a person called it; `label` which of the
    test's machines it is (``vm``, ``vm_module``), `state` what it started from. `why` it was kept is a line.
    `session` tells the runs of one pytest apart from others', `when` is in seconds since the epoch. `outside`
    are the files that it needs and that are not in the store: path, size in bytes, last change (ns).
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
    """A kept machine: its note, and what it weighs."""

    note: Note
    holding: Holding

    @property
    def key(self) -> str:
        return self.holding.name.key


class Keeper:
    """Keeps machines in `store` for the runs of one `session`: the first `most` of them."""

    def __init__(self, store: Store, *, session: str, most: Keep, project: Path) -> None:
        self._store = store
        self._session = session
        self._most = most
        self._project = project

    def keep(self, tenancy: Tenancy, note: Note) -> Kept | None:
        """Save a machine as it is, and keep it; None where as many are kept as are wanted.

        It goes on as if nothing had been. Raises `StoreFull`, `StoreDamaged`, `GuestGone`, `HostError`.
        """
        with FileLock(self._store.path / "locks" / "keep.lock", mode=0o600):
            if self._most != "failed" and self._count() >= self._most:
                return None
            moment = tenancy.save_as_is()
            try:
                note = replace(note, session=self._session, project=str(self._project))
                return keep(moment, note, source=self._store, target=self._store)
            finally:
                tenancy.forget(moment)

    def _count(self) -> int:
        return sum(each.note.session == self._session for each in kept(self._store))


def keep(moment: Moment, note: Note, *, source: Store, target: Store) -> Kept:
    """Keep in `target` what was saved at `moment` of a machine that was made from an entry of `source`.

    Raises `StoreFull`, `StoreDamaged`.
    """
    note = replace(note, when=time.time(), outside=_outside(moment.snapshot, source))
    fields = dataclasses.asdict(note)
    key = digest(fields)

    def build(draft: Path) -> None:
        _fill(Store(draft, progress=silent()), key, moment, note, source)
        (draft / NOTE).write_text(json.dumps(fields, indent=1) + "\n")

    target.provide("kept", key, f"machine of {note.title}", build)
    target.claims.remove(
        Name(kind="kept", key=key)
    )  # this run has no further use of it: it counts for the limit
    return next(each for each in kept(target) if each.key == key)


def kept(store: Store) -> list[Kept]:
    """All kept machines, the oldest first; one that cannot be read is left out."""
    found = []
    for holding in holdings(store, "kept"):
        try:
            fields = json.loads((store.place(holding.name) / NOTE).read_text())
            outside = tuple((path, size, changed) for path, size, changed in fields.pop("outside"))
            found.append(Kept(note=Note(**fields, outside=outside), holding=holding))
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("%s cannot be read: %s", holding.name, error)
    return sorted(found, key=lambda each: each.note.when)


def trim(store: Store, *, limit_mib: int, days: int) -> list[Kept]:
    """Remove what is older than `days`, and the oldest of what is over the limit; returns what goes.

    What a run uses stays, and so does the last one.
    """
    everything = kept(store)
    excess = sum(each.holding.size for each in everything) - (limit_mib << 20)
    oldest = time.time() - days * DAY_SECONDS
    gone = []
    for each in everything:
        too_much = excess > 0 and each is not everything[-1]
        if (too_much or each.note.when < oldest) and store.remove(each.holding.name, unless_used=True):
            gone.append(each)
            excess -= each.holding.size
    return gone


def store_of(store: Store, each: Kept) -> Store:
    """The small store that a kept machine of `store` is; it is claimed.

    Raises `StoreDamaged` where it is not there, or what it needs from outside is not what it was.
    """
    store.claims.add(each.holding.name)
    place = store.place(each.holding.name)
    if not place.is_dir():
        raise StoreDamaged(f"the kept machine of {each.note.title} has just been removed")
    for noted in each.note.outside:
        if not Path(noted[0]).exists() or _outline(Path(noted[0])) != noted:
            raise StoreDamaged(
                f"{noted[0]}, which the kept machine of {each.note.title} was made on, is not what it was then"
            )
    return Store(place, progress=silent())


def damage_of_kept(store: Store, each: Kept) -> Damage | None:
    """What is wrong with a kept machine of `store`, all of whose files are read."""
    place = store.place(each.holding.name)
    try:
        found = damage_of(Store(place, progress=silent()), name_of(each))
    except StoreError as error:
        return Damage(name=each.holding.name, what=error.message, inode=None)
    what = "; ".join(damage.what for damage in found)
    return Damage(name=each.holding.name, what=what, inode=None) if found else None


def name_of(each: Kept) -> Name:
    """The entry that a kept machine's snapshot is, in the store of its own."""
    return Name(kind=states.KIND, key=each.key)


def _fill(small: Store, key: str, moment: Moment, note: Note, source: Store) -> None:
    """Have the snapshot of `moment` in the empty store `small`, as the state `key`, with all that it needs."""
    origin, *later = reversed(list(_line(moment)))
    state = Name(kind=states.KIND, key=origin.snapshot.directory.name)
    link_entries(source, state, small)
    image = _linked(moment.snapshot.image, source, small)

    def build(draft: Path) -> None:
        disks = tuple(small.place(state) / disk.name for disk in origin.snapshot.disks)
        for number, each in enumerate(later):
            disks = tuple(
                fork.copy_onto(disk, draft / f"{number}-{disk.name}", backing=backing)
                for disk, backing in zip(each.snapshot.disks, disks, strict=True)
            )
        devices = draft / moment.snapshot.devices.name
        link_or_copy(moment.snapshot.devices, devices)
        memory = _memory(moment.snapshot, origin.snapshot, draft)
        about = states.origin_of(source.place(state))
        about = replace(about, name=note.title, parent=state.key, created=note.when)
        snapshot = replace(
            moment.snapshot,
            directory=draft,
            disks=disks,
            devices=devices,
            memory=memory,
            image=image,
        )
        states.seal(small, draft, snapshot, about)
        for path in (*disks, devices):
            path.chmod(0o400)

    small.provide(states.KIND, key, note.title, build, made_on=[state])


def _line(moment: Moment) -> Iterator[Moment]:
    """The moment, and those that its disks are layers on, down to the state."""
    each: Moment | None = moment
    while each:
        yield each
        each = each.below


def _memory(snapshot: Snapshot, origin: Snapshot, draft: Path) -> LayeredMemory:
    """The memory of `snapshot`, its layers down to that of `origin` in `draft`."""
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
    """`image` with its files in `small`, as far as they were in `source`."""

    def linked(path: Path | None) -> Path | None:
        if path is None or not path.is_relative_to(source.path):
            return path
        target = small.path / path.relative_to(source.path)
        if not target.exists():  # a state names only what its disks stand on
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            link_or_copy(path, target)
        return target

    return replace(image, disk=linked(image.disk), kernel=linked(image.kernel), initrd=linked(image.initrd))


def _outside(snapshot: Snapshot, source: Store) -> tuple[tuple[str, int, int], ...]:
    paths = (snapshot.image.disk, snapshot.image.kernel, snapshot.image.initrd)
    return tuple(_outline(path) for path in paths if path and not path.is_relative_to(source.path))


def _outline(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    return str(path), found.st_size, found.st_mtime_ns
