"""What machines are made with, opened together when the first one is asked for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from pytest_vmsnap import hooks as hook_calls
from pytest_vmsnap.errors import RevertError, StoreDamaged
from pytest_vmsnap.fork import Forge
from pytest_vmsnap.guest import Access, ConsoleLogin, SshLogin
from pytest_vmsnap.host import choose_uri, default_store, open_host
from pytest_vmsnap.machine import Deadlines
from pytest_vmsnap.pool import HostBudget, Maker, OwnBudget, Pool, Tenancy
from pytest_vmsnap.states import Library
from pytest_vmsnap.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_vmsnap.fork import Snapshot
    from pytest_vmsnap.machine import Trail
    from pytest_vmsnap.model import MachineSpec, Settings
    from pytest_vmsnap.pool import Budget
    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.session.timings import Timings
    from pytest_vmsnap.states import StateTree
    from pytest_vmsnap.store import Asker

STANDBY = "standby"
ENDING_SECONDS = 5.0  # until the machines that have not ended are killed
TCG_FACTOR = 3.0  # software emulation is slower: what takes a second under KVM takes tens


class Engine:
    """The host, the store, the states in it, and the pool of machines; `close` ends what was begun.

    `hooks` are pytest's; `timings` gets what is built and handed over; `asker` is this process, to others;
    `observe` is called with a machine that ends since its state could not be made. Raises `HostError` where no
    machine can run, `StoreError`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        tree: StateTree,
        hooks: Any,
        progress: Progress,
        timings: Timings,
        asker: Asker,
        observe: Callable[[Trail], None],
    ) -> None:
        self.settings = settings
        self._hooks = hooks
        self._timings = timings
        choice = choose_uri(settings)
        self.store = Store(
            settings.store or default_store(choice),
            progress=progress,
            refresh=settings.refresh,
            asker=asker,
        )
        with progress.step(f"connecting to {choice.uri}"):
            self.host = open_host(settings, choice, store=self.store.path)
        self.access = _access(settings, self.store.path, self._scaled)
        forge = Forge(
            host=self.host,
            root=settings.root,
            customize=self._customize,
            ports=self.access.ports,
            say=progress.say,
            scaled=self._scaled,
        )
        self.store.claims.run = self.host.run.data
        maker = Maker(
            forge=forge,
            access=self.access,
            factor=self.deadlines.factor,
            proves_clean=settings.verify != "none",
        )
        self.pool = Pool(maker, budget=self._budget(), note=self._note_revert)
        hook = hooks.pytest_vmsnap_prepare
        self.library = Library(
            settings=settings,
            tree=tree,
            store=self.store,
            forge=forge,
            maker=maker,
            access=self.access,
            deadlines=lambda: self.deadlines,
            prepare=hook_calls.implementations(hook),
            prepare_all=lambda machine, spec: hook_calls.call_outermost_first(hook, vm=machine, spec=spec),
            progress=progress,
            note_use=timings.note_state,
            observe=observe,
        )

    @property
    def deadlines(self) -> Deadlines:
        """How long things may take with the accelerator that there is."""
        factor = self.settings.timeout_factor
        if factor is None:
            factor = 1.0 if self.host.facts.accelerator.name == "kvm" else TCG_FACTOR
        return Deadlines(command=self.settings.timeout, factor=factor, output=self.settings.output_limit << 20)

    def _scaled(self, seconds: float) -> float:
        """A deadline of so many seconds, as it holds with the accelerator that there is."""
        return seconds * self.deadlines.factor

    def taken(self, snapshot: Snapshot) -> Tenancy:
        """A clean machine in the state of `snapshot`; raises `RevertError` where none can be given."""
        lease = self.pool.take(snapshot)
        try:
            return Tenancy(self.pool, lease, snapshot)
        except BaseException:
            self.pool.discard(lease)
            raise

    def taken_of(self, spec: MachineSpec, state: str) -> Tenancy:
        """A clean machine in `state`, which is made anew, once, where it is damaged in the store.

        Raises `RevertError` where none can be given, and as `Library.snapshot` does.
        """
        __tracebackhide__ = True
        try:
            return self.taken(self.library.snapshot(spec, state))
        except (RevertError, StoreDamaged):
            if (healed := self.library.healed(spec, state)) is None:
                raise
            return self.taken(healed)

    def _budget(self) -> Budget:
        if self.settings.standby is not None:
            return OwnBudget(self.settings.standby)
        return HostBudget(self.store.path / "locks" / STANDBY, self._parties)

    def _parties(self) -> int:
        """How many runs have machines made ahead, ours too from now on."""
        self.store.claims.take_part(STANDBY)
        return self.store.claims.parties(STANDBY)

    def _note_revert(self, snapshot: Snapshot, seconds: float, ahead: bool) -> None:
        states = (state for (_, state), found in self.library.found.items() if found is snapshot)
        self._timings.note_revert(next(states, ""), seconds, ahead)

    def close(self) -> None:
        """End every machine but those that somebody has, and remove what the run had on disk.

        A machine whose making hangs is killed after a few seconds: a worker of xdist has ten for its end. Where
        a Ctrl-C breaks it off, the host stays open: a machine may be in the making, and who closes again
        waits for it. Raises `StoreDamaged` where a snapshot was written to.
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


def _access(settings: Settings, store: Path, scaled: Callable[[float], float]) -> Access:
    return Access(
        channel=settings.channel,
        ssh=SshLogin(directory=store / "ssh", user=settings.ssh_user or "root", given=settings.ssh_key),
        console=ConsoleLogin(user=settings.console_user, password=settings.console_password or ""),
        scaled=scaled,
    )
