"""The snapshots of states: taken from the store, or built."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, cast, overload

from pytest_vmsnap import image as images
from pytest_vmsnap.errors import (
    BootError,
    ChannelError,
    HostError,
    RevertError,
    StoreDamaged,
)
from pytest_vmsnap.fork import ClusterSnapshot
from pytest_vmsnap.guest import stop_calendar_timers
from pytest_vmsnap.machine import History, Machine
from pytest_vmsnap.model import ClusterSpec, MachineSpec
from pytest_vmsnap.readable import last_line, qemu_output
from pytest_vmsnap.states import cache_key, entries, last_run
from pytest_vmsnap.states.base_state import (
    BASE,
    BOOT_SECONDS,
    KvmCannotRunGuest,
    QemuFailed,
    build_base,
    check_entropy,
    image_request,
)
from pytest_vmsnap.states.clusters import ClusterBuilder, join_parts
from pytest_vmsnap.states.preparation import observed, run_preparation
from pytest_vmsnap.store import (
    EntryName,
    damage_of,
    remove_damaged,
    trim,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from pytest_vmsnap.fork import DomainFactory, Saved, Snapshot
    from pytest_vmsnap.guest import ChannelFactory
    from pytest_vmsnap.machine import Deadlines
    from pytest_vmsnap.model import Image, Settings
    from pytest_vmsnap.pool import ClusterLease, Lease, Provisioner
    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.states.declarations import Declaration
    from pytest_vmsnap.states.entries import Origin
    from pytest_vmsnap.states.preparation import PreparationHook
    from pytest_vmsnap.states.run_registry import RunRegistry
    from pytest_vmsnap.states.tree import StateTree
    from pytest_vmsnap.store import Damage, Fingerprint, Kind, SourceTitle, Store

log = logging.getLogger("pytest_vmsnap.states")

Spec = MachineSpec | ClusterSpec


class Library:
    """The states of a project for one run: takes each from the store, or builds it once and stores it.

    `prepare` is ``pytest_vmsnap_prepare``, `prepare_cluster` is ``pytest_vmsnap_prepare_cluster``. `note_use`
    is called once for each state that is used, with its name, its key, the seconds that it took to build (None
    if it was not built), and the title of the source that this run has it from, None without one. `observe` is
    called with the history of a machine whose state could not be made, before the machine ends. `registry` is
    what the run does with a registry.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        tree: StateTree,
        store: Store,
        factory: DomainFactory,
        provisioner: Provisioner,
        channel_factory: ChannelFactory,
        deadlines: Callable[[], Deadlines],
        prepare: PreparationHook,
        prepare_cluster: PreparationHook,
        progress: Progress,
        note_use: Callable[[str, str, float | None, SourceTitle | None], None],
        observe: Callable[[History], None],
        registry: RunRegistry,
    ) -> None:
        self._settings = settings
        self._tree = tree
        self._store = store
        self._factory = factory
        self._provisioner = provisioner
        self._channel_factory = channel_factory
        self._deadlines = deadlines
        self._prepare = prepare
        self._prepare_cluster = prepare_cluster
        self._progress = progress
        self._note_use = note_use
        self._build_seconds: dict[str, float] = {}  # by key
        self._observe = observe
        self._registry = registry
        self._found: dict[tuple[Spec, str], Saved] = {}
        self._images: dict[MachineSpec, Image] = {}
        self._keys: dict[tuple[Spec, str], str] = {}
        self._key_parts: dict[str, dict[str, str]] = {}  # by key
        self._healed: set[tuple[Spec, str]] = set()
        self._images_healed: set[MachineSpec] = set()
        self._clusters = ClusterBuilder(
            store=store,
            factory=factory,
            provisioner=provisioner,
            channel_factory=channel_factory,
            deadlines=deadlines,
            progress=progress,
            observe=observe,
        )

    @property
    def found(self) -> dict[tuple[Spec, str], Saved]:
        """The snapshots that `snapshot` has returned so far, by spec and state."""
        return self._found

    @overload
    def snapshot(self, spec: MachineSpec, state: str) -> Snapshot: ...

    @overload
    def snapshot(self, spec: ClusterSpec, state: str) -> ClusterSnapshot: ...

    @overload
    def snapshot(self, spec: Spec, state: str) -> Saved: ...

    def snapshot(self, spec: Spec, state: str) -> Saved:
        """The snapshot of `state` for a machine, or cluster, of `spec`.

        Raises `StateFailed` if the function of the state or of an ancestor fails, `BootError`, `ImageError`,
        `StoreError`.
        """
        __tracebackhide__ = True
        if (spec, state) not in self._found:
            try:
                entry = self._entry(spec, state)
            except KvmCannotRunGuest as error:
                if self._settings.accel != "auto":
                    raise
                self._progress.say(f"{error.message}; continuing with software emulation")
                self._factory.host.demote(error.message)
                self._keys.clear()
                entry = self._entry(spec, state)
            except QemuFailed as error:
                printed = last_line(qemu_output(error.log))
                self._progress.say(
                    f"warning: {error.message}; it is booted once more"
                    + (f". QEMU printed: {printed}" if printed else "")
                )
                entry = self._entry(spec, state)
            self._found[spec, state] = self._opened(entry)
            self._registry.push(EntryName(kind=entries.KIND, key=entry.name))
            source = self._store.fetched.get(EntryName(kind=entries.KIND, key=entry.name))
            self._note_use(state, self.key(spec, state), self._build_seconds.get(self.key(spec, state)), source)
            trim(self._store, self._settings.store_limit)
        return self._found[spec, state]

    def rebuilt_if_damaged(self, spec: Spec, state: str) -> Saved | None:
        """The rebuilt snapshot of `state` if it is damaged in the store; None if it is not.

        Call this for a snapshot that cannot be loaded. It reads the snapshot and everything that it depends on,
        and removes what is damaged and what was made from that. Each state is rebuilt once in a run; after that
        the result is None. Raises as `snapshot` does.
        """
        __tracebackhide__ = True
        if (spec, state) in self._healed:
            return None
        with self._progress.step(f"checking the state {state} in the store"):
            damaged = damage_of(self._store, EntryName(kind=entries.KIND, key=self.key(spec, state)))
        damaged = damaged or self._registry.distrust(EntryName(kind=entries.KIND, key=self.key(spec, state)))
        if not damaged:
            return None
        self._healed.add((spec, state))
        self._remove(damaged)
        return self.snapshot(spec, state)

    def expect_unchanged(self) -> None:
        """Check that nothing wrote to the snapshots that machines of this run were made from.

        A memory file that QEMU opens for writing is read in whole, by the last run that uses it: otherwise each
        xdist worker would read the same file in the few seconds that it has to end. Raises `StoreDamaged` with
        the file that was written to; the next run rebuilds its state.
        """
        written: dict[Path, Fingerprint] = {}
        for snapshot in (member for found in self._found.values() for member in found.members):
            snapshot.memory.expect_untouched()
            bottom = snapshot.memory.bottom
            if bottom and not snapshot.capabilities.sealed_memory:
                written[bottom.path] = bottom
        for path, bottom in written.items():
            if self._store.unpin(EntryName(kind=entries.KIND, key=path.parent.name)):
                bottom.expect_unchanged()

    def key(self, spec: Spec, state: str) -> str:
        """The key of the snapshot of `state` for a machine, or cluster, of `spec` in the store."""
        if (spec, state) not in self._keys:
            if state == BASE and isinstance(spec, ClusterSpec):
                members = {member.name: self.key(member.spec, member.state) for member in spec.members}
                parts = join_parts(members, self._prepare_cluster, self._settings.root)
            elif isinstance(spec, MachineSpec) and state == BASE:
                parts = cache_key.base_parts(
                    self._factory,
                    spec=spec,
                    image=self._image(spec),
                    channel_factory=self._channel_factory,
                    prepare=self._prepare.implementations,
                    root=self._settings.root,
                )
            else:
                declaration = self._tree.declaration(state)
                parent = self.key(spec, declaration.parent)
                parts = cache_key.state_parts(declaration, parent=parent, root=self._settings.root)
            key = self._keys[spec, state] = cache_key.key_of(parts)
            below: dict[str, str] = {}
            if state != BASE:
                below = self._key_parts[self.key(spec, self._tree.declaration(state).parent)]
            own = {f"{state}.{name}": text for name, text in cache_key.key_parts(parts).items()}
            self._key_parts[key] = below | own
            last_run.note(self._store, self._settings.root, state, key, self._key_parts[key])
        return self._keys[spec, state]

    def _image(self, spec: MachineSpec) -> Image:
        if spec not in self._images:
            request = image_request(spec, root=self._settings.root, mirror=self._settings.image_mirror)
            self._images[spec] = images.provide(request, store=self._store, progress=self._progress)
        return self._images[spec]

    def _entry(self, spec: Spec, state: str) -> Path:
        __tracebackhide__ = True
        if isinstance(spec, ClusterSpec):
            return self._cluster_entry(spec, state)
        if state == BASE:
            try:
                return self._base_entry(spec)
            except (BootError, ChannelError, HostError):
                if not self._heals_image(spec):
                    raise
                return self._base_entry(spec)
        declaration = self._tree.declaration(state)
        parent = EntryName(kind=entries.KIND, key=self.key(spec, declaration.parent))
        if self._refreshed(spec, declaration.parent):
            self.snapshot(spec, declaration.parent)  # removes what was made from the old parent
        return self._store.provide(
            entries.KIND,
            self.key(spec, state),
            f"state {state}",
            lambda draft: self._build(draft, spec, declaration),
            depends_on=[parent],
            rebuild=state in self._settings.refresh_state,
        )

    def _cluster_entry(self, spec: ClusterSpec, state: str) -> Path:
        """The entry of a cluster in `state`; of ``base``, its machines are joined and nothing else."""
        __tracebackhide__ = True
        declaration = None if state == BASE else self._tree.declaration(state)
        sources: list[tuple[Spec, str]] = [(each.spec, each.state) for each in spec.members]
        if declaration:
            sources = [(spec, declaration.parent)]

        def start() -> ClusterSnapshot:
            if declaration:
                return self.snapshot(spec, declaration.parent)
            machines = {each.name: self.snapshot(each.spec, each.state) for each in spec.members}
            return ClusterSnapshot(directory=self._store.path, machines=machines)

        def build(draft: Path) -> Iterable[EntryName]:
            __tracebackhide__ = True
            self._registry.say_what_differs(state, self._key_parts[self.key(spec, state)])
            prepare: Callable[..., object] | None = declaration.function if declaration else None
            if not declaration and self._prepare_cluster.implementations:
                prepare = partial(self._prepare_cluster.call, spec=spec)
            lease = self._made(sources, start)
            started = time.monotonic()
            origin = next(iter(lease.leases.values())).clone.snapshot.image.origin
            made = self._clusters.build(
                draft,
                spec,
                cast("ClusterLease", lease),
                state=state,
                parent=self.key(spec, declaration.parent) if declaration else None,
                prepare=prepare,
                origin=lambda name, parent: self._origin(
                    origin, name, parent, self.key(spec, state) if name == state else ""
                ),
            )
            self._build_seconds[self.key(spec, state)] = time.monotonic() - started
            return made

        if any(self._refreshed(*source) for source in sources):
            start()  # removes what was made from the old ones
        names = ", ".join(member.name for member in spec.members)
        what = f"cluster {state}" if declaration else f"cluster of {names}"
        return self._store.provide(
            entries.KIND, self.key(spec, state), what, build, rebuild=state in self._settings.refresh_state
        )

    def _base_entry(self, spec: MachineSpec) -> Path:
        return self._store.provide(
            entries.KIND,
            self.key(spec, BASE),
            f"state {BASE}",
            lambda draft: self._build_base(draft, spec),
            depends_on=self._below(spec),
            rebuild=BASE in self._settings.refresh_state,
        )

    def _heals_image(self, spec: MachineSpec) -> bool:
        """Remove the image if it is damaged in the store, and return whether it was; at most once in a run."""
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
            self._progress.say(f"{each.name} in the store is damaged and will be rebuilt: {each.what}")
        remove_damaged(self._store, damaged)
        self._found.clear()
        self._images.clear()

    def _refreshed(self, spec: Spec, state: str) -> bool:
        """Whether the options ask to rebuild `state`, or one that it was made from."""
        names = (*self._tree.ancestors(state), state)
        if self._settings.refresh or any(name in self._settings.refresh_state for name in names):
            return True
        members = spec.members if isinstance(spec, ClusterSpec) else ()
        return any(self._refreshed(member.spec, member.state) for member in members)

    def _below(self, spec: MachineSpec) -> list[EntryName]:
        """The entries of the store that have the backing files of a base state's disks."""
        parts = [path.relative_to(self._store.path).parts for path in self._backings(spec)]
        return [EntryName(kind=cast("Kind", kind), key=key) for kind, key, *_ in parts]

    def _backings(self, spec: MachineSpec) -> list[Path]:
        disk = self._image(spec).disk
        found = [self._factory.host.reachable(disk)] if disk else []
        return [path for path in found if path.is_relative_to(self._store.path)]

    def _opened(self, entry: Path) -> Saved:
        found = entries.load_any(self._store, entry)
        for snapshot in found.members:
            check_entropy(snapshot.guest.reseeder, self._settings.entropy, self._progress)
            entries.open_to(self._factory.host, snapshot)
        return found

    def _build_base(self, draft: Path, spec: MachineSpec) -> None:
        __tracebackhide__ = True
        self._registry.say_what_differs(BASE, self._key_parts[self.key(spec, BASE)])
        started = time.monotonic()
        snapshot = build_base(
            self._factory,
            spec=spec,
            image=self._image(spec),
            prepare=lambda machine: self._prepare.call(machine, spec),
            channel_factory=self._channel_factory,
            deadlines=self._deadlines(),
            entropy=self._settings.entropy,
            progress=self._progress,
            into=draft,
            observe=self._observe,
        )
        self._build_seconds[self.key(spec, BASE)] = time.monotonic() - started
        log.info("base state saved: %s", snapshot.capabilities)
        self._seal(draft, snapshot, BASE, None, self.key(spec, BASE))

    def _made(self, sources: Sequence[tuple[Spec, str]], start: Callable[[], Saved]) -> Lease | ClusterLease:
        """A machine, or cluster, of the snapshot that `start` returns, to continue from.

        If it cannot be made, the states of `sources` that are damaged in the store are rebuilt first.
        """
        __tracebackhide__ = True
        try:
            return self._provisioner.make(start())
        except (RevertError, StoreDamaged):
            if not [source for source in sources if self.rebuilt_if_damaged(*source)]:
                raise
            return self._provisioner.make(start())

    def _build(self, draft: Path, spec: MachineSpec, declaration: Declaration) -> None:
        __tracebackhide__ = True
        name = declaration.name
        self._registry.say_what_differs(name, self._key_parts[self.key(spec, name)])
        source = (spec, declaration.parent)
        lease = cast("Lease", self._made([source], lambda: self.snapshot(*source)))
        started = time.monotonic()
        history = History(f"state {declaration.name}")
        with ExitStack() as stack:
            stack.push(lease.__exit__)
            machine = Machine(
                lease.clone,
                lease.channel,
                spec=spec,
                state=declaration.name,
                deadlines=self._deadlines(),
                ssh_login=self._channel_factory.ssh,
                history=history,
                progress=self._progress,
            )
            with observed(history, self._observe):
                run_preparation(machine, declaration.function, self._progress)
            seconds = BOOT_SECONDS * self._deadlines().factor
            with self._progress.step(f"saving the state {declaration.name}"):
                stop_calendar_timers(lease.channel, timeout=seconds)
                self._factory.writable_directory(draft)
                snapshot = lease.save(draft, timeout=seconds)
        self._build_seconds[self.key(spec, declaration.name)] = time.monotonic() - started
        parent = self.key(spec, declaration.parent)
        self._seal(draft, snapshot, declaration.name, parent, self.key(spec, declaration.name))

    def _seal(self, draft: Path, snapshot: Snapshot, state: str, parent: str | None, key: str) -> None:
        entries.seal(self._store, draft, snapshot, self._origin(snapshot.image.origin, state, parent, key))

    def _origin(self, image: str, state: str, parent: str | None, key: str) -> Origin:
        return entries.origin_now(
            state,
            project=self._settings.root,
            parent=parent,
            made_from=entries.made_from(self._factory.host.facts, image),
            key_parts=self._key_parts.get(key),
        )
