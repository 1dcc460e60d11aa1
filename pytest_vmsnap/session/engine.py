"""Everything that machines are made with; opened when the first machine is needed."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from pytest_vmsnap import hooks as hook_calls
from pytest_vmsnap.errors import RevertError, StoreDamaged
from pytest_vmsnap.fork import DomainFactory
from pytest_vmsnap.guest import ChannelFactory, ConsoleLogin, SshLogin
from pytest_vmsnap.host import choose_uri, default_store, open_host
from pytest_vmsnap.machine import Deadlines
from pytest_vmsnap.pool import Allocation, HostBudget, OwnBudget, Pool, Provisioner
from pytest_vmsnap.registry import open_registry, parse_address
from pytest_vmsnap.states import (
    Library,
    PreparationHook,
    RunRegistry,
    SystemStore,
    expect_own_store,
    read_lock,
    registry_source,
)
from pytest_vmsnap.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_vmsnap.fork import Saved
    from pytest_vmsnap.machine import Cluster, History, Machine
    from pytest_vmsnap.model import ClusterSpec, MachineSpec, Settings
    from pytest_vmsnap.pool import Budget
    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.session.timings import Timings
    from pytest_vmsnap.states import StateTree
    from pytest_vmsnap.store import LockOwner

STANDBY = "standby"
ENDING_SECONDS = 5.0  # before machines that have not ended are killed
TCG_FACTOR = 3.0  # software emulation is slower: what takes one second under KVM takes tens of seconds


class Engine:
    """The host, the store, the library of states, and the pool of machines; end them with `close`.

    `hooks` are pytest's; `timings` records builds and reverts; `lock_owner` identifies this process to others
    that wait for the store; `observe` is called with the history of a machine whose state could not be made,
    before the machine ends. Raises `HostError` if no machine can run on the host, `StoreError` if the store
    cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        tree: StateTree,
        hooks: Any,
        progress: Progress,
        timings: Timings,
        lock_owner: LockOwner,
        observe: Callable[[History], None],
    ) -> None:
        self.settings = settings
        self._hooks = hooks
        self._timings = timings
        choice = choose_uri(settings)
        path = settings.store or default_store(choice)
        expect_own_store(path, settings.system_store)
        self.store = Store(
            path,
            progress=progress,
            refresh=settings.refresh,
            lock_owner=lock_owner,
        )
        with progress.step(f"connecting to {choice.uri}"):
            self.host = open_host(settings, choice, store=self.store.path)
        self.channel_factory = _channel_factory(settings, self.store.path, self._scaled)
        factory = DomainFactory(
            host=self.host,
            root=settings.root,
            customize=self._customize,
            ports=self.channel_factory.ports,
            say=progress.say,
            scaled=self._scaled,
        )
        self.store.pins.run = self.host.run.data
        self._add_system_store(progress)
        registry = open_registry(parse_address(settings.registry)) if settings.registry else None
        if registry:
            puller = registry_source(
                self.store, registry, root=settings.root, progress=progress, pinned=read_lock(settings.root)
            )
            self.store.sources.append(puller)
        provisioner = Provisioner(
            factory=factory,
            channel_factory=self.channel_factory,
            factor=self.deadlines.factor,
            proves_clean=settings.verify != "none",
        )
        self.pool = Pool(provisioner, budget=self._budget(), note=self._note_revert)
        self.library = Library(
            settings=settings,
            tree=tree,
            store=self.store,
            factory=factory,
            provisioner=provisioner,
            channel_factory=self.channel_factory,
            deadlines=lambda: self.deadlines,
            prepare=_preparation_hook(hooks.pytest_vmsnap_prepare, "vm"),
            prepare_cluster=_preparation_hook(hooks.pytest_vmsnap_prepare_cluster, "vm_cluster"),
            progress=progress,
            note_use=timings.note_state,
            observe=observe,
            registry=RunRegistry(self.store, target=registry if settings.push else None, progress=progress),
        )

    def _add_system_store(self, progress: Progress) -> None:
        path = self.settings.system_store
        if path is None:
            return
        if not os.path.isdir(path):  # noqa: PTH112 - false where we may not enter
            if self.settings.origins.get("system_store", "default") != "default":
                progress.say(
                    f"the system store {path} is not a directory that you can enter; `vmsnap share` makes one"
                )
            return
        self.store.sources.append(SystemStore(path, self.store, project=self.settings.root, progress=progress))

    @property
    def deadlines(self) -> Deadlines:
        """The timeouts, in seconds, with the current accelerator."""
        factor = self.settings.timeout_factor
        if factor is None:
            factor = 1.0 if self.host.facts.accelerator.name == "kvm" else TCG_FACTOR
        return Deadlines(command=self.settings.timeout, factor=factor, output=self.settings.output_limit << 20)

    def _scaled(self, seconds: float) -> float:
        """A timeout of so many seconds, scaled for the current accelerator."""
        return seconds * self.deadlines.factor

    def allocate(self, snapshot: Saved) -> Allocation[Any]:
        """A clean machine in the state of `snapshot`; raises `RevertError` if it cannot be made."""
        lease = self.pool.take(snapshot)
        try:
            return Allocation(self.pool, lease, snapshot)
        except BaseException:
            self.pool.discard(lease)
            raise

    def allocate_state(self, spec: MachineSpec | ClusterSpec, state: str) -> Allocation[Any]:
        """A clean machine in `state`; a state that is damaged in the store is rebuilt once.

        Raises `RevertError` or `StoreDamaged` if the machine cannot be made, and as `Library.snapshot` does.
        """
        __tracebackhide__ = True
        try:
            return self.allocate(self.library.snapshot(spec, state))
        except (RevertError, StoreDamaged):
            if (rebuilt := self.library.rebuilt_if_damaged(spec, state)) is None:
                raise
            return self.allocate(rebuilt)

    def _budget(self) -> Budget:
        if self.settings.standby is not None:
            return OwnBudget(self.settings.standby)
        return HostBudget(self.store.path / "locks" / STANDBY, self._count_members)

    def _count_members(self) -> int:
        """How many runs make machines ahead; from now on this run is one of them."""
        self.store.pins.join(STANDBY)
        return self.store.pins.count_members(STANDBY)

    def _note_revert(self, snapshot: Saved, seconds: float, ahead: bool) -> None:
        states = (state for (_, state), found in self.library.found.items() if found is snapshot)
        self._timings.note_revert(next(states, ""), seconds, ahead)

    def close(self) -> None:
        """End every machine that is not in use, and remove what the run has on disk.

        Machines that have not ended after `ENDING_SECONDS` are killed, because xdist gives a worker only ten
        seconds to end. If Ctrl-C interrupts `close`, the host stays open, since a machine may still be in the
        making; call `close` again to wait for it. Raises `StoreDamaged` if something wrote to a snapshot.
        """
        by_force = threading.Timer(ENDING_SECONDS, self.host.kill_machines)
        by_force.daemon = True
        by_force.start()
        try:
            self.pool.close()
            self.library.expect_unchanged()
        except Exception:
            self.host.close()
            raise
        finally:
            by_force.cancel()
        self.host.close()

    def _customize(self, domain: Any, spec: MachineSpec) -> None:
        hook_calls.call_outermost_first(self._hooks.pytest_vmsnap_domain_xml, domain=domain, spec=spec)


def _preparation_hook(caller: Any, prepared: str) -> PreparationHook:
    """The hook that `caller` calls; `prepared` is the name of its parameter for what is prepared."""

    def call(machine: Machine | Cluster, spec: MachineSpec | ClusterSpec) -> None:
        hook_calls.call_outermost_first(caller, **{prepared: machine, "spec": spec})

    return PreparationHook(implementations=hook_calls.implementations(caller), call=call)


def _channel_factory(settings: Settings, store: Path, scaled: Callable[[float], float]) -> ChannelFactory:
    return ChannelFactory(
        channel=settings.channel,
        ssh=SshLogin(directory=store / "ssh", user=settings.ssh_user or "root", given=settings.ssh_key),
        console=ConsoleLogin(user=settings.console_user, password=settings.console_password or ""),
        scaled=scaled,
    )
