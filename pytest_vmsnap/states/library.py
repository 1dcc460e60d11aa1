"""The snapshots of states: from the store, or built."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, cast

from pytest_vmsnap import image as images
from pytest_vmsnap.errors import BootError, ChannelError, HostError, RevertError, StoreDamaged
from pytest_vmsnap.guest import stop_calendar_timers
from pytest_vmsnap.machine import Machine, Trail
from pytest_vmsnap.states import entries, keys
from pytest_vmsnap.states.base import (
    BASE,
    BOOT_SECONDS,
    DiedOfKvm,
    accept_repeats,
    build_base,
    image_request,
    observed,
    prepared,
)
from pytest_vmsnap.store import Name, damage_of, remove_damaged, trim

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_vmsnap.fork import Forge, Snapshot
    from pytest_vmsnap.guest import Access
    from pytest_vmsnap.machine import Deadlines
    from pytest_vmsnap.model import Image, MachineSpec, Settings
    from pytest_vmsnap.pool import Maker
    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.states.declared import Declaration
    from pytest_vmsnap.states.tree import StateTree
    from pytest_vmsnap.store import Damage, Fingerprint, Kind, Store

log = logging.getLogger("pytest_vmsnap.states")


class Library:
    """The states of a project for one run: each is taken from the store, or built once and kept there.

    `prepare` are the implementations of the hook that prepares the base state: `prepare_all` calls them.
    `note_use` is told of each state that is used, once: its name, its key, and the seconds that it took to
    build, None where the store had it. `observe` is called with a machine that ends since its state could not
    be made.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        tree: StateTree,
        store: Store,
        forge: Forge,
        maker: Maker,
        access: Access,
        deadlines: Callable[[], Deadlines],
        prepare: Sequence[Callable[..., object]],
        prepare_all: Callable[[Machine, MachineSpec], None],
        progress: Progress,
        note_use: Callable[[str, str, float | None], None],
        observe: Callable[[Trail], None],
    ) -> None:
        self._settings = settings
        self._tree = tree
        self._store = store
        self._forge = forge
        self._maker = maker
        self._access = access
        self._deadlines = deadlines
        self._prepare = prepare
        self._prepare_all = prepare_all
        self._progress = progress
        self._note_use = note_use
        self._build_seconds: dict[str, float] = {}  # by key
        self._observe = observe
        self._found: dict[tuple[MachineSpec, str], Snapshot] = {}
        self._images: dict[MachineSpec, Image] = {}
        self._keys: dict[tuple[MachineSpec, str], str] = {}
        self._healed: set[tuple[MachineSpec, str]] = set()
        self._images_healed: set[MachineSpec] = set()

    @property
    def found(self) -> dict[tuple[MachineSpec, str], Snapshot]:
        """The snapshots that were asked for so far, by machine and state."""
        return self._found

    def snapshot(self, spec: MachineSpec, state: str) -> Snapshot:
        """The snapshot of `state` for a machine of `spec`.

        Raises `StateFailed` where a state's function fails, its parent's too, `BootError`, `ImageError`,
        `StoreError`.
        """
        __tracebackhide__ = True
        if (spec, state) not in self._found:
            try:
                entry = self._entry(spec, state)
            except DiedOfKvm as error:
                if self._settings.accel != "auto":
                    raise
                self._progress.say(f"{error.message}: going on with software emulation")
                self._forge.host.demote(error.message)
                self._keys.clear()
                entry = self._entry(spec, state)
            self._found[spec, state] = self._opened(entry)
            self._note_use(state, self.key(spec, state), self._build_seconds.get(self.key(spec, state)))
            trim(self._store, self._settings.store_limit)
        return self._found[spec, state]

    def healed(self, spec: MachineSpec, state: str) -> Snapshot | None:
        """The snapshot of `state`, made anew; None where what is in the store is what was saved.

        For a snapshot that cannot be loaded. All that it stands on is read; what is damaged is removed,
        with what was made on it. Each state is made anew once in a run. Raises as `snapshot` does.
        """
        __tracebackhide__ = True
        if (spec, state) in self._healed:
            return None
        with self._progress.step(f"checking what is in the store of the state {state}"):
            damaged = damage_of(self._store, Name(kind=entries.KIND, key=self.key(spec, state)))
        if not damaged:
            return None
        self._healed.add((spec, state))
        self._remove(damaged)
        return self.snapshot(spec, state)

    def expect_unchanged(self) -> None:
        """Prove of the snapshots that machines of this run were made from that none was written to.

        What QEMU could have written to is read, by the last run that uses it: the workers of xdist would read
        the same file each, in the seconds that they have for their end. Raises `StoreDamaged` with the file
        that was: the next run makes that state anew.
        """
        written: dict[Path, Fingerprint] = {}
        for snapshot in self._found.values():
            snapshot.memory.expect_untouched()
            bottom = snapshot.memory.bottom
            if bottom and not snapshot.abilities.sealed_memory:
                written[bottom.path] = bottom
        for path, bottom in written.items():
            if self._store.leave(Name(kind=entries.KIND, key=path.parent.name)):
                bottom.expect_unchanged()

    def key(self, spec: MachineSpec, state: str) -> str:
        """What names the snapshot of `state` for a machine of `spec` in the store."""
        if (spec, state) not in self._keys:
            if state == BASE:
                parts = keys.base_parts(
                    self._forge,
                    spec=spec,
                    image=self._image(spec),
                    access=self._access,
                    prepare=self._prepare,
                    root=self._settings.root,
                )
            else:
                declaration = self._tree.declaration(state)
                parent = self.key(spec, declaration.parent)
                parts = keys.state_parts(declaration, parent=parent, root=self._settings.root)
            self._keys[spec, state] = keys.key_of(parts)
        return self._keys[spec, state]

    def _image(self, spec: MachineSpec) -> Image:
        if spec not in self._images:
            request = image_request(spec, root=self._settings.root)
            self._images[spec] = images.provide(request, store=self._store, progress=self._progress)
        return self._images[spec]

    def _entry(self, spec: MachineSpec, state: str) -> Path:
        __tracebackhide__ = True
        if state == BASE:
            try:
                return self._base_entry(spec)
            except (BootError, ChannelError, HostError):
                if not self._heals_image(spec):
                    raise
                return self._base_entry(spec)
        declaration = self._tree.declaration(state)
        parent = Name(kind=entries.KIND, key=self.key(spec, declaration.parent))
        if self._refreshed(declaration.parent):
            self.snapshot(spec, declaration.parent)  # what was made from the one before goes with it
        return self._store.provide(
            entries.KIND,
            self.key(spec, state),
            f"state {state}",
            lambda draft: self._build(draft, spec, declaration),
            made_on=[parent],
            anew=state in self._settings.refresh_state,
        )

    def _base_entry(self, spec: MachineSpec) -> Path:
        return self._store.provide(
            entries.KIND,
            self.key(spec, BASE),
            f"state {BASE}",
            lambda draft: self._build_base(draft, spec),
            made_on=self._below(spec),
            anew=BASE in self._settings.refresh_state,
        )

    def _heals_image(self, spec: MachineSpec) -> bool:
        """Whether the image was damaged, and has been removed so that it is built anew; once in a run."""
        if spec in self._images_healed or not (below := self._below(spec)):
            return False
        origin = self._image(spec).origin
        with self._progress.step(f"checking the image {origin} in the store"):
            damaged = [damage for name in below for damage in damage_of(self._store, name)]
        if not damaged:
            return False
        self._images_healed.add(spec)
        self._remove(damaged)
        return True

    def _remove(self, damaged: Sequence[Damage]) -> None:
        for each in damaged:
            self._progress.say(f"{each.name} in the store is damaged, and is made anew: {each.what}")
        remove_damaged(self._store, damaged)
        self._found.clear()
        self._images.clear()

    def _refreshed(self, state: str) -> bool:
        """Whether `state`, or one that it is made from, is to be made anew."""
        names = (*self._tree.ancestors(state), state)
        return self._settings.refresh or any(name in self._settings.refresh_state for name in names)

    def _below(self, spec: MachineSpec) -> list[Name]:
        """The entries of the store that the disks of a base state are made on."""
        parts = [path.relative_to(self._store.path).parts for path in self._backings(spec)]
        return [Name(kind=cast("Kind", kind), key=key) for kind, key, *_ in parts]

    def _backings(self, spec: MachineSpec) -> list[Path]:
        disk = self._image(spec).disk
        found = [self._forge.host.reachable(disk)] if disk else []
        return [path for path in found if path.is_relative_to(self._store.path)]

    def _opened(self, entry: Path) -> Snapshot:
        snapshot = entries.load(self._store, entry)
        accept_repeats(snapshot.guest.reseeder, self._settings.entropy, self._progress)
        entries.open_to(self._forge.host, snapshot)
        return snapshot

    def _build_base(self, draft: Path, spec: MachineSpec) -> None:
        __tracebackhide__ = True
        started = time.monotonic()
        snapshot = build_base(
            self._forge,
            spec=spec,
            image=self._image(spec),
            prepare=lambda machine: self._prepare_all(machine, spec),
            access=self._access,
            deadlines=self._deadlines(),
            entropy=self._settings.entropy,
            progress=self._progress,
            into=draft,
            observe=self._observe,
        )
        self._build_seconds[self.key(spec, BASE)] = time.monotonic() - started
        log.info("base state saved: %s", snapshot.abilities)
        self._seal(draft, snapshot, BASE, None)

    def _build(self, draft: Path, spec: MachineSpec, declaration: Declaration) -> None:
        __tracebackhide__ = True
        parent = self.snapshot(spec, declaration.parent)
        started = time.monotonic()
        try:
            lease = self._maker.make(parent)
        except (RevertError, StoreDamaged):
            if (healed := self.healed(spec, declaration.parent)) is None:
                raise
            lease = self._maker.make(healed)
        trail = Trail(f"state {declaration.name}")
        try:
            machine = Machine(
                lease.clone,
                lease.channel,
                spec=spec,
                state=declaration.name,
                deadlines=self._deadlines(),
                ssh_login=self._access.ssh,
                trail=trail,
                progress=self._progress,
            )
            with observed(trail, self._observe):
                prepared(machine, declaration.function, self._progress)
            seconds = BOOT_SECONDS * self._deadlines().factor
            with self._progress.step(f"saving the state {declaration.name}"):
                stop_calendar_timers(lease.channel, timeout=seconds)
                self._forge.to_write_in(draft)
                snapshot = lease.save(draft, timeout=seconds)
        finally:
            lease.end()
        self._build_seconds[self.key(spec, declaration.name)] = time.monotonic() - started
        self._seal(draft, snapshot, declaration.name, self.key(spec, declaration.parent))

    def _seal(self, draft: Path, snapshot: Snapshot, state: str, parent: str | None) -> None:
        made_from = entries.made_from(self._forge.host.facts, snapshot.image.origin)
        origin = entries.origin_now(state, project=self._settings.root, parent=parent, made_from=made_from)
        entries.seal(self._store, draft, snapshot, origin)
