"""What a pytest run has of machines: its host, its snapshots, and who holds what."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap import selection
from pytest_vmsnap.errors import DOCTOR, ChannelError, HostError, PromiseBroken, SpecError, VmsnapError
from pytest_vmsnap.machine import Machine, Trail
from pytest_vmsnap.model import Settings
from pytest_vmsnap.progress import Progress
from pytest_vmsnap.session.engine import Engine
from pytest_vmsnap.session.failures import Failures
from pytest_vmsnap.session.held import Held
from pytest_vmsnap.session.lent import Lent
from pytest_vmsnap.session.timings import Timings
from pytest_vmsnap.session.witness import Witness
from pytest_vmsnap.states import NO_STATES, StateTree
from pytest_vmsnap.store import Asker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vmsnap.fork import Snapshot
    from pytest_vmsnap.host import Facts
    from pytest_vmsnap.machine import AtTerminal
    from pytest_vmsnap.model import MachineSpec
    from pytest_vmsnap.pool import Tenancy
    from pytest_vmsnap.store import Store

log = logging.getLogger("pytest_vmsnap.session")


class VmsnapSession:
    """The plugin's handle, which the fixture ``vmsnap`` gives: host facts, store, states, timings.

    Nothing is connected or started before the first machine is asked for, or `describe`. `timings` is where its
    figures go, `asker` is this process, to others. Where it is `quiet`, only what is wrong is written.
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
        asker: Asker | None = None,
    ) -> None:
        self.settings = settings
        self._at_terminal = at_terminal
        self.timings = timings or Timings()
        self._asker = asker or Asker()
        self._progress = Progress(write, quiet=quiet)
        self._quiet = quiet
        self._hooks = hooks
        self._engine: Engine | None = None
        self._failures = Failures()
        self._untold: VmsnapError | None = None
        self._kept: Held | None = None
        self._live: dict[tuple[str, str], Lent] = {}  # by fixture and the node it was made for
        self._leaving: list[Lent] = []  # their test is not told of yet
        self._witness = Witness(settings, progress=self._progress, factor=self._factor, at_terminal=at_terminal)
        self._audited: dict[str, Held] = {}  # by the test that promised to change nothing
        self._failed: set[str] = set()
        self.tree: StateTree = NO_STATES  # what the project declares, known once it is collected
        self._specs: dict[tuple[Any, Any], MachineSpec] = {}  # by where, and by what a test asks for
        self._following: pytest.Item | None = None

    @property
    def facts(self) -> Facts:
        """What was found on this host; raises `HostError` where no machine can run."""
        return self._opened("the fixture vmsnap").host.facts

    @property
    def store(self) -> Store:
        """What outlives the run."""
        return self._opened("the fixture vmsnap").store

    @property
    def states(self) -> tuple[tuple[str, MachineSpec], ...]:
        """The states that this run has asked for so far: name and machine."""
        return tuple((state, spec) for spec, state in (self._engine.library.found if self._engine else ()))

    @property
    def in_use(self) -> bool:
        """Whether something was opened that `close` ends."""
        return self._engine is not None

    def describe(self) -> list[str]:
        """Lines for the header: which libvirt and accelerator run which machine, and why. Never raises."""
        try:
            facts = self._opened("the header").host.facts
        except VmsnapError as error:
            self._failures.clear()
            self._untold = error  # the first test is to tell it in full
            return [
                f"vmsnap: no machine can run here: {str(error).splitlines()[0]}",
                *([f"        {DOCTOR}"] if isinstance(error, HostError) else []),
            ]
        settings = self.settings
        cpus = settings.cpus or facts.cpus
        warnings = [*facts.warnings, *filter(None, [facts.doubts(cpus)])]
        why = facts.accelerator.reason
        if facts.accelerator.hint:
            why = f"{why.partition(': ')[0]}; `vmsnap doctor` says more"
        lines = (
            []
            if self._quiet
            else [
                f"vmsnap: {facts.uri.uri} ({facts.uri.reason}), libvirt {facts.libvirt_version}, "
                f"QEMU {facts.qemu_version}, {facts.accelerator.name} ({why})",
                f"vmsnap: image {settings.image or 'none'}, {settings.memory} MiB, {_counted(cpus)}, "
                f"network {settings.network}, revert {settings.revert}",
            ]
        )
        return lines + [f"vmsnap: warning: {warning}" for warning in warnings]

    @contextmanager
    def lend(self, node: pytest.Item, spec: MachineSpec, wishes: selection.Wishes) -> Iterator[Machine]:
        """The machine of the fixture ``vm`` for the test `node`, by the policy and its markers."""
        __tracebackhide__ = True
        where, mark = node.nodeid, wishes.mark
        spec = self._fitted(spec, where)
        self._snapshot(spec, wishes.state, where)  # its failure is told before a machine is looked for
        grant = selection.decide(self.settings.revert, mark, self._last(spec, wishes.state, where))
        if grant.machine == "clean" or self._kept is None:
            self._discard_kept()
            held = Held(
                tenancy=self._taken(spec, wishes.state, where), spec=spec, state=wishes.state, owner=where
            )
        else:
            held, self._kept = self._kept, None
            held.owner = where
        if mark == "readonly" and self.settings.verify == "audit":
            self._audited[where] = held
        else:
            held.forget_listing()
        is_clean = grant.machine == "clean"
        lent = self._lent("vm", where, held.tenancy, spec, wishes.state, clean=is_clean)
        lent.ends = not grant.keep
        try:
            self._look_ahead(node, spec)
            if where in self._audited:
                held.list_before(factor=self._factor())
            yield lent.machine
        finally:
            if self._audited.pop(where, None) and not held.audited:
                held.forget_listing()  # it skipped or failed: what it changed is not the next test's doing
            held.failed = held.failed or where in self._failed
            held.read_only = held.read_only and mark == "readonly"
            if grant.keep:
                self._kept = held
            self._leave(lent)

    def note_end(self, item: pytest.Item) -> None:
        """The test itself has ended: a machine that waits for the next one can answer until that begins."""
        lent = self._live.get(("vm", item.nodeid))
        if lent and lent.ends and self._engine and self._following:
            self._engine.pool.awaken(self._expected(self._following))

    @contextmanager
    def lend_shared(
        self, fixture: str, node: pytest.Item | pytest.Collector, spec: MachineSpec, state: str
    ) -> Iterator[Machine]:
        """The machine of a wider `fixture` for its scope's `node`: its own, clean at the start, in `state`."""
        __tracebackhide__ = True
        where = node.nodeid or "the session"
        spec = self._fitted(spec, where)
        lent = self._lent(fixture, where, self._taken(spec, state, where), spec, state, clean=True)
        try:
            yield lent.machine
        finally:
            self._leave(lent)

    @contextmanager
    def lend_further(
        self, node: pytest.Item, spec: MachineSpec, state: str, *, name: str | None
    ) -> Iterator[Machine]:
        """One more machine for the test `node`, called `name`, None for a number: clean, and its own."""
        __tracebackhide__ = True
        where = node.nodeid
        self.tree.require(state, f"vm_factory({state!r})")
        taken = [fixture for fixture, owner in self._live if owner == where]
        if not name:
            numbers = map(str, count(len(taken)))
            name = next(number for number in numbers if f"vm_factory:{number}" not in taken)
        elif f"vm_factory:{name}" in taken:
            raise SpecError(f"vm_factory(name={name!r}): this test has a machine of that name already")
        spec = self._fitted(spec, where)
        tenancy = self._taken(spec, state, where)
        lent = self._lent(f"vm_factory:{name}", where, tenancy, spec, state, clean=True)
        try:
            yield lent.machine
        finally:
            self._leave(lent)

    def note_following(self, following: pytest.Item | None) -> None:
        """Which test comes behind the one that begins, None behind the last."""
        self._following = following

    def _look_ahead(self, node: pytest.Item, spec: MachineSpec) -> None:
        """Tell the pool what the tests behind `node`, which has a machine of `spec`, will ask for."""
        assert self._engine  # noqa: S101 - there is a machine
        pool = self._engine.pool
        if not pool.most_ahead:
            return
        kind = selection.recipe(node)
        self._specs[node.path, kind] = self._specs[None, kind] = spec
        coming: list[Snapshot] = []
        for item in selection.ahead(node.session.items, self._following, self.settings.revert, last=node):
            if expected := self._expected(item):
                coming.append(expected)
            if len(coming) == pool.most_ahead:
                break
        pool.expect(coming)

    def _expected(self, item: pytest.Item) -> Snapshot | None:
        """Of what the test will ask for a machine, as far as that can be known now."""
        kind = selection.recipe(item)
        spec = self._specs.get((item.path, kind)) or self._specs.get((None, kind))
        state = selection.wishes(item.iter_markers(), item.nodeid).state
        return self._engine.library.found.get((spec, state)) if spec and self._engine else None

    def begin(self, item: pytest.Item) -> None:
        """A test begins: what the consoles of machines that are there already show is of this test now."""
        self.timings.begin(item.nodeid)
        self._failed.discard(item.nodeid)  # it is run again, under the same name
        self._let_go()
        for lent in self._lent_to(item):
            lent.machine.begin()

    def note_outcome(self, item: pytest.Item, failed: bool) -> None:
        """A phase of a test ended."""
        if not failed:
            return
        self._failed.add(item.nodeid)
        if self._kept and self._kept.owner == item.nodeid:
            self._kept.failed = True

    def expect_unchanged(self, item: pytest.Item) -> None:
        """Raise `PromiseBroken` where a test that promised to change nothing did (`vmsnap_verify=audit`)."""
        if held := self._audited.get(item.nodeid):
            try:
                changes = held.changes(factor=self._opened(item.nodeid).deadlines.factor)
            except ChannelError as error:
                changes = [f"it does not answer any more: {error.message}"]
            if changes:
                raise PromiseBroken(
                    "vm_readonly promises to change nothing, and this test changed:", changes=changes
                )

    def testify(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Have in the `report` of a phase of a test what its machines can say, where that is wanted."""
        self._witness.testify(item, report, self._lent_to(item), self._engine)
        if report.when == "teardown":
            self._let_go()

    def close(self) -> None:
        """End every machine, and remove what the run had on disk. Nothing happens the second time.

        Where a Ctrl-C broke it off, the second time waits for what is left.
        """
        with ExitStack() as steps:  # each is taken, whatever another raises
            steps.callback(self._close_engine)
            steps.callback(self._discard_kept)
            steps.callback(self._let_go)

    def _close_engine(self) -> None:
        if engine := self._engine:
            try:
                with self._progress.step("ending the machines"):
                    engine.close()
            except VmsnapError:
                self._engine = None
                raise
            self._engine = None

    def _lent_to(self, item: pytest.Item) -> list[Lent]:
        """The machines that the test has, and those that it had until now."""
        names = getattr(item, "fixturenames", ())  # without what it asks for as it runs
        return [
            lent
            for lent in (*self._live.values(), *self._leaving)
            if lent.owner == item.nodeid or lent.fixture.partition(":")[0] in names
        ]

    def _leave(self, lent: Lent) -> None:
        """A machine's fixture ends; the machine itself may when its last test has been told of."""
        lent.machine.release(lent.owner)
        del self._live[lent.fixture, lent.owner]
        self._leaving.append(lent)

    def _let_go(self) -> None:
        """What was told of is of no use any more."""
        while self._leaving:
            lent = self._leaving.pop(0)
            try:
                if lent.ends:
                    lent.tenancy.end()
                else:
                    lent.tenancy.forget_all()
            except Exception as error:
                log.exception("%s could not be let go", lent.machine)
                self._progress.say(f"{lent.machine.name} may end only with the run: {error}")

    def _last(self, spec: MachineSpec, state: str, where: str) -> selection.Last | None:
        kept = self._kept
        if kept is None or kept.owner == where:  # the test itself had it, and is run again
            return None
        fits = (kept.spec, kept.state) == (spec, state)
        return selection.Last(
            fits=fits, well=fits and kept.tenancy.lease.is_well(), failed=kept.failed, read_only=kept.read_only
        )

    def _lent(
        self, fixture: str, where: str, tenancy: Tenancy, spec: MachineSpec, state: str, *, clean: bool
    ) -> Lent:
        assert self._engine  # noqa: S101 - there is a machine
        trail = Trail(fixture.rpartition(":")[2])
        machine = Machine(
            tenancy.lease.clone,
            tenancy.lease.channel,
            spec=spec,
            state=state,
            deadlines=self._engine.deadlines,
            ssh_login=self._engine.access.ssh,
            at_terminal=self._at_terminal,
            tenancy=tenancy,
            untouched=clean,
            trail=trail,
            progress=self._progress,
        )
        lent = Lent(fixture=fixture, owner=where, machine=machine, trail=trail, tenancy=tenancy)
        self._live[fixture, where] = lent
        return lent

    def _factor(self) -> float:
        """By how much deadlines are stretched."""
        return self._engine.deadlines.factor if self._engine else 1.0

    def _taken(self, spec: MachineSpec, state: str, where: str) -> Tenancy:
        __tracebackhide__ = True
        self._snapshot(spec, state, where)  # its failure is told once
        return self._opened(where).taken_of(spec, state)

    def _discard_kept(self) -> None:
        kept, self._kept = self._kept, None
        if kept:
            kept.tenancy.end()

    def _opened(self, where: str) -> Engine:
        if self._engine is None:
            with self._failures.told_once(None, where):
                if untold := self._untold:
                    self._untold = None
                    raise untold
                self._engine = Engine(
                    self.settings,
                    tree=self.tree,
                    hooks=self._hooks,
                    progress=self._progress,
                    timings=self.timings,
                    asker=self._asker,
                    observe=self._witness.observe,
                )
        return self._engine

    def _fitted(self, spec: MachineSpec, where: str) -> MachineSpec:
        """`spec` with what it leaves to the host."""
        return spec if spec.cpus else spec.replace(cpus=self._opened(where).host.facts.cpus)

    def _snapshot(self, spec: MachineSpec, state: str, where: str) -> Snapshot:
        """The snapshot of `state`, after those it is made from; each one's failure is told once."""
        __tracebackhide__ = True
        engine = self._opened(where)
        for name in (*self.tree.ancestors(state), state):
            if (spec, name) in self._failures or name == state:
                with self._failures.told_once((spec, name), where):
                    return engine.library.snapshot(spec, name)
        raise AssertionError(state)


def _counted(cpus: int) -> str:
    return f"{cpus} CPU" if cpus == 1 else f"{cpus} CPUs"


SETTINGS_KEY = pytest.StashKey[Settings]()
SESSION_KEY = pytest.StashKey[VmsnapSession]()
