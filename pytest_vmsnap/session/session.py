"""The plugin's session: the machines of a pytest run, from the first request to the end."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_vmsnap import selection
from pytest_vmsnap.errors import DOCTOR, HostError, VmsnapError
from pytest_vmsnap.machine import Cluster, History, Machine
from pytest_vmsnap.model import Settings
from pytest_vmsnap.pool import expect_memory
from pytest_vmsnap.progress import Progress
from pytest_vmsnap.session.engine import Engine
from pytest_vmsnap.session.evidence_recorder import EvidenceRecorder
from pytest_vmsnap.session.failures import Failures
from pytest_vmsnap.session.fixture_machines import FixtureMachine, FixtureMachines
from pytest_vmsnap.session.header import header_lines
from pytest_vmsnap.session.prefetch import Prefetcher
from pytest_vmsnap.session.readonly_audit import ReadonlyAudit
from pytest_vmsnap.session.reusable_machine import ReusableMachine
from pytest_vmsnap.session.timings import Timings
from pytest_vmsnap.states import NO_STATES, StateTree
from pytest_vmsnap.store import LockOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vmsnap.host import Facts
    from pytest_vmsnap.machine import AtTerminal
    from pytest_vmsnap.model import ClusterSpec, MachineSpec
    from pytest_vmsnap.pool import Allocation, ClusterLease, Lease
    from pytest_vmsnap.store import Store


class VmsnapSession:
    """The value of the fixture ``vmsnap``: facts about the host, the store, the states in use, and timings.

    It connects to libvirt and starts machines only when a test needs one, or for `describe`. `write` shows a
    line, `timings` records builds and reverts, `lock_owner` identifies this process to others that wait for the
    store. With `quiet`, only problems are written.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        write: Callable[[str], None],
        quiet: bool = False,
        hooks: Any,
        at_terminal: AtTerminal = nullcontext,
        timings: Timings | None = None,
        lock_owner: LockOwner | None = None,
    ) -> None:
        self.settings = settings
        self._at_terminal = at_terminal
        self.timings = timings or Timings()
        self._lock_owner = lock_owner or LockOwner()
        self._progress = Progress(write, quiet=quiet)
        self._quiet = quiet
        self._hooks = hooks
        self._engine: Engine | None = None
        self._failures = Failures()
        self._unreported_error: VmsnapError | None = None
        self._kept: ReusableMachine | None = None
        self._machines = FixtureMachines(self._progress)
        self._prefetcher = Prefetcher(settings.revert)
        self._recorder = EvidenceRecorder(
            settings, progress=self._progress, factor=self._factor, at_terminal=at_terminal
        )
        self._audit = ReadonlyAudit(self._factor)
        self._failed: set[str] = set()
        self.tree: StateTree = NO_STATES  # the project's states; set after collection

    @property
    def facts(self) -> Facts:
        """What the plugin found on this host; raises `HostError` if no machine can run."""
        return self._opened("the fixture vmsnap").host.facts

    @property
    def store(self) -> Store:
        """The store, which outlives the run; raises `HostError` if no machine can run, `StoreError`."""
        return self._opened("the fixture vmsnap").store

    @property
    def states(self) -> tuple[tuple[str, MachineSpec | ClusterSpec], ...]:
        """The states that this run has used so far, each with the `MachineSpec` of its machine."""
        return tuple((state, spec) for spec, state in (self._engine.library.found if self._engine else ()))

    @property
    def in_use(self) -> bool:
        """Whether there is anything for `close` to end."""
        return self._engine is not None

    def describe(self) -> list[str]:
        """Lines for the header: which libvirt, accelerator and machine the run uses, and why.

        Never raises a `VmsnapError`: if no machine can run, the lines say so, and the first test raises it.
        """
        try:
            facts = self._opened("the header").host.facts
        except VmsnapError as error:
            self._failures.clear()
            self._unreported_error = error  # the first test reports it in full
            return [
                f"vmsnap: no machine can run here: {str(error).splitlines()[0]}",
                *([f"        {DOCTOR}"] if isinstance(error, HostError) else []),
            ]
        return header_lines(self.settings, facts, quiet=self._quiet)

    @contextmanager
    def provide(
        self, node: pytest.Item, spec: MachineSpec, requirements: selection.Requirements
    ) -> Iterator[Machine]:
        """Provide the machine of the fixture ``vm`` to the test `node`, as the policy and its markers say."""
        __tracebackhide__ = True
        where, mark = node.nodeid, requirements.mark
        spec = self._with_host_cpus(spec, where)
        self._snapshot(spec, requirements.state, where)  # report a failed state before choosing a machine
        decision = selection.decide(self.settings.revert, mark, self._last(spec, requirements.state, where))
        if decision.machine == "clean" or self._kept is None:
            self._discard_kept()
            reusable = ReusableMachine(
                allocation=self._allocate(spec, requirements.state, where),
                spec=spec,
                state=requirements.state,
                owner=where,
            )
        else:
            reusable, self._kept = self._kept, None
            reusable.owner = where
        is_clean = decision.machine == "clean"
        entry = self._assign("vm", where, reusable.allocation, spec, requirements.state, clean=is_clean)
        entry.ends = not decision.keep
        try:
            self._prefetcher.prefetch(self._opened(where), node, spec)
            is_audited = mark == "readonly" and self.settings.verify == "audit"
            with self._audit.during(where, reusable, is_wanted=is_audited):
                yield cast("Machine", entry.machine)
        finally:
            reusable.failed = reusable.failed or where in self._failed
            reusable.read_only = reusable.read_only and mark == "readonly"
            if decision.keep:
                self._kept = reusable
            self._machines.give_back(entry)

    def note_end(self, item: pytest.Item) -> None:
        """Note that the test's call phase has ended: ping the standby for the next test meanwhile."""
        entry = self._machines.find("vm", item.nodeid) or self._machines.find("vm_cluster", item.nodeid)
        if entry and entry.ends and self._engine:
            self._prefetcher.ping_next_standby(self._engine)

    @contextmanager
    def provide_shared(
        self, fixture: str, node: pytest.Item | pytest.Collector, spec: MachineSpec, state: str
    ) -> Iterator[Machine]:
        """Provide a clean machine in `state` to `node`, the scope of a class, module or session `fixture`."""
        __tracebackhide__ = True
        where = node.nodeid or "the session"
        spec = self._with_host_cpus(spec, where)
        entry = self._assign(fixture, where, self._allocate(spec, state, where), spec, state, clean=True)
        try:
            yield cast("Machine", entry.machine)
        finally:
            self._machines.give_back(entry)

    @contextmanager
    def provide_further(
        self, node: pytest.Item, spec: MachineSpec, state: str, *, name: str | None
    ) -> Iterator[Machine]:
        """Provide another clean machine in `state` to the test `node`; reports call it `name`, or a number.

        Raises `UnknownState`, or `SpecError` if the test already has a machine of that name.
        """
        __tracebackhide__ = True
        where = node.nodeid
        self.tree.require(state, f"vm_factory({state!r})")
        fixture = self._machines.free_name("vm_factory", where, name)
        spec = self._with_host_cpus(spec, where)
        allocation = self._allocate(spec, state, where)
        entry = self._assign(fixture, where, allocation, spec, state, clean=True)
        try:
            yield cast("Machine", entry.machine)
        finally:
            self._machines.give_back(entry)

    @contextmanager
    def provide_cluster(
        self, fixture: str, node: pytest.Item | pytest.Collector, spec: ClusterSpec, state: str
    ) -> Iterator[Cluster]:
        """The cluster of `fixture` for the `node` of its scope: clean at its start, in `state`."""
        __tracebackhide__ = True
        where = node.nodeid or "the session"
        engine = self._opened(where)
        spec = spec.replace_each(cpus=engine.host.facts.cpus)
        expect_memory(len(spec.members), spec.memory)
        self._snapshot(spec, state, where)  # reports a failure of the state only once
        allocation: Allocation[ClusterLease] = engine.allocate_state(spec, state)
        with ExitStack() as undoing:
            undoing.callback(allocation.end)
            histories = {name: History(_label(fixture, name), member=name) for name in allocation.lease.leases}
            cluster = Cluster.of(
                allocation.lease,
                spec,
                state=state,
                deadlines=engine.deadlines,
                ssh_login=engine.channel_factory.ssh,
                histories=histories,
                progress=self._progress,
                at_terminal=self._at_terminal,
                allocation=allocation,
            )
            entry = FixtureMachine(
                fixture=fixture,
                owner=where,
                machine=cluster,
                histories=tuple(histories.values()),
                allocation=allocation,
            )
            self._machines.add(entry)
            undoing.pop_all()
        try:
            if isinstance(node, pytest.Item):
                self._prefetcher.prefetch(engine, node, spec)
            yield cluster
        finally:
            self._machines.give_back(entry)

    def note_following(self, following: pytest.Item | None) -> None:
        """Note the test that runs after the one that begins now; None after the last."""
        self._prefetcher.note_following(following)

    def begin(self, item: pytest.Item) -> None:
        """Note that a test begins: from now on, the output of machines that already run belongs to it."""
        self.timings.begin(item.nodeid)
        self._failed.discard(item.nodeid)  # a rerun has the same node id
        self._machines.end_released()
        for entry in self._machines.of_test(item):
            entry.machine.begin()

    def note_outcome(self, item: pytest.Item, failed: bool) -> None:
        """Note that a phase of a test ended, and whether it failed."""
        if not failed:
            return
        self._failed.add(item.nodeid)
        if self._kept and self._kept.owner == item.nodeid:
            self._kept.failed = True

    def expect_unchanged(self, item: pytest.Item) -> None:
        """Raise `PromiseBroken` if a read-only test changed its machine (``vmsnap_verify=audit``)."""
        self._audit.expect_unchanged(item.nodeid)

    def record_evidence(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Add the evidence of a test's machines to the `report` of a phase of it, if options ask for it."""
        self._recorder.record_evidence(item, report, self._machines.of_test(item), self._engine)
        if report.when == "teardown":
            self._machines.end_released()

    def close(self) -> None:
        """End every machine, and remove what the run has on disk. A second call does nothing.

        If Ctrl-C interrupted the first call, the second one waits for what is left.
        """
        with ExitStack() as steps:  # runs each step even if another one raises
            steps.callback(self._close_engine)
            steps.callback(self._discard_kept)
            steps.callback(self._machines.end_released)

    def _close_engine(self) -> None:
        if engine := self._engine:
            try:
                with self._progress.step("ending the machines"):
                    engine.close()
            except VmsnapError:
                self._engine = None
                raise
            self._engine = None

    def _last(self, spec: MachineSpec, state: str, where: str) -> selection.PreviousMachine | None:
        kept = self._kept
        if kept is None or kept.owner == where:  # the same test is rerun: it needs another machine
            return None
        fits = (kept.spec, kept.state) == (spec, state)
        return selection.PreviousMachine(
            fits=fits,
            well=fits and kept.allocation.lease.is_well(),
            failed=kept.failed,
            read_only=kept.read_only,
        )

    def _assign(
        self,
        fixture: str,
        where: str,
        allocation: Allocation[Lease],
        spec: MachineSpec,
        state: str,
        *,
        clean: bool,
    ) -> FixtureMachine:
        assert self._engine  # noqa: S101 - an allocation comes from it
        with ExitStack() as undoing:
            undoing.callback(allocation.end)
            history = History(fixture.rpartition(":")[2])
            machine = Machine(
                allocation.lease.clone,
                allocation.lease.channel,
                spec=spec,
                state=state,
                deadlines=self._engine.deadlines,
                ssh_login=self._engine.channel_factory.ssh,
                at_terminal=self._at_terminal,
                allocation=allocation,
                untouched=clean,
                history=history,
                progress=self._progress,
            )
            entry = FixtureMachine(
                fixture=fixture, owner=where, machine=machine, histories=(history,), allocation=allocation
            )
            self._machines.add(entry)
            undoing.pop_all()
        return entry

    def _factor(self) -> float:
        """The factor that scales deadlines."""
        return self._engine.deadlines.factor if self._engine else 1.0

    def _allocate(self, spec: MachineSpec, state: str, where: str) -> Allocation[Lease]:
        __tracebackhide__ = True
        self._snapshot(spec, state, where)  # reports a failure of the state only once
        return self._opened(where).allocate_state(spec, state)

    def _discard_kept(self) -> None:
        kept, self._kept = self._kept, None
        if kept:
            kept.allocation.end()

    def _opened(self, where: str) -> Engine:
        if self._engine is None:
            with self._failures.report_once(None, where):
                if unreported := self._unreported_error:
                    self._unreported_error = None
                    raise unreported
                self._engine = Engine(
                    self.settings,
                    tree=self.tree,
                    hooks=self._hooks,
                    progress=self._progress,
                    timings=self.timings,
                    lock_owner=self._lock_owner,
                    observe=self._recorder.observe,
                )
        return self._engine

    def _with_host_cpus(self, spec: MachineSpec, where: str) -> MachineSpec:
        """`spec` with the host's number of CPUs, if it names none."""
        return spec if spec.cpus else spec.replace(cpus=self._opened(where).host.facts.cpus)

    def _snapshot(self, spec: Any, state: str, where: str) -> Any:
        """The snapshot of `state`; if it or one of its ancestors fails, that is reported in full only once."""
        __tracebackhide__ = True
        engine = self._opened(where)
        for name in (*self.tree.ancestors(state), state):
            if (spec, name) in self._failures or name == state:
                with self._failures.report_once((spec, name), where):
                    return engine.library.snapshot(spec, name)
        raise AssertionError(state)


def _label(fixture: str, machine: str) -> str:
    """What artifacts call a machine of a cluster: its name, unless that could mean another one."""
    return machine if fixture == "vm_cluster" and not machine.startswith("vm") else f"{fixture}-{machine}"


SETTINGS_KEY = pytest.StashKey[Settings]()
SESSION_KEY = pytest.StashKey[VmsnapSession]()
