"""What a pytest run has of machines: its host, its snapshots, and who holds what."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap import selection
from pytest_vmsnap.errors import ChannelError, PromiseBroken, VmsnapError, tail
from pytest_vmsnap.machine import Machine
from pytest_vmsnap.model import Settings
from pytest_vmsnap.progress import Progress
from pytest_vmsnap.session.engine import Engine
from pytest_vmsnap.session.failures import Failures
from pytest_vmsnap.session.held import Held
from pytest_vmsnap.session.timings import Timings
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

CONSOLE_LINES = 40


class VmsnapSession:
    """The plugin's handle, which the fixture ``vmsnap`` gives: host facts, store, states, timings.

    Nothing is connected or started before the first machine is asked for, or `describe`. `timings` is where its
    figures go, `asker` is this process, to others.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        write: Callable[[str], None],
        hooks: Any,
        at_terminal: AtTerminal = nullcontext,
        timings: Timings | None = None,
        asker: Asker | None = None,
    ) -> None:
        self.settings = settings
        self._at_terminal = at_terminal
        self.timings = timings or Timings()
        self._asker = asker or Asker()
        self._progress = Progress(write)
        self._hooks = hooks
        self._engine: Engine | None = None
        self._failures = Failures()
        self._untold: VmsnapError | None = None
        self._kept: Held | None = None
        self._live: dict[tuple[str, str], Machine] = {}  # by fixture and the node it was made for
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

    def describe(self) -> list[str]:
        """Lines for the header: which libvirt and accelerator run which machine, and why. Never raises."""
        try:
            facts = self._opened("the header").host.facts
        except VmsnapError as error:
            self._failures.clear()
            self._untold = error  # the first test is to tell it in full
            return [f"vmsnap: no machine can run here: {str(error).splitlines()[0]}"]
        settings = self.settings
        cpus = settings.cpus or facts.cpus
        warnings = [*facts.warnings, *filter(None, [facts.doubts(cpus)])]
        lines = [
            f"vmsnap: {facts.uri.uri} ({facts.uri.reason}), libvirt {facts.libvirt_version}, "
            f"QEMU {facts.qemu_version}, {facts.accelerator.name} ({facts.accelerator.reason})",
            *(f"        {line}" for line in facts.accelerator.hint.splitlines()),
            f"vmsnap: image {settings.image or 'none'}, {settings.memory} MiB, {_counted(cpus)}, "
            f"network {settings.network}, revert {settings.revert}",
        ]
        return lines + [f"vmsnap: warning: {warning}" for warning in warnings]

    @contextmanager
    def lend(self, node: pytest.Item, spec: MachineSpec, wishes: selection.Wishes) -> Iterator[Machine]:
        """The machine of the fixture ``vm`` for the test `node`, by the policy and its markers."""
        __tracebackhide__ = True
        where, mark = node.nodeid, wishes.mark
        spec = self._fitted(spec, where)
        self._snapshot(spec, wishes.state, where)  # its failure is told before a machine is looked for
        grant = selection.decide(self.settings.revert, mark, self._last(spec, wishes.state))
        if grant.machine == "clean" or self._kept is None:
            self._discard_kept()
            held = Held(
                tenancy=self._taken(spec, wishes.state, where), spec=spec, state=wishes.state, owner=where
            )
        else:
            held, self._kept = self._kept, None
            held.owner = where
        self._look_ahead(node, spec)
        if mark == "readonly" and self.settings.verify == "audit":
            self._audited[where] = held
        else:
            held.forget_listing()
        is_clean = grant.machine == "clean"
        machine = self._live["vm", where] = self._machine(held.tenancy, spec, wishes.state, clean=is_clean)
        try:
            if where in self._audited:
                held.list_before(factor=self._opened(where).deadlines.factor)
            yield machine
        finally:
            machine.release(where)
            del self._live["vm", where]
            self._audited.pop(where, None)
            held.failed = held.failed or where in self._failed
            held.read_only = held.read_only and mark == "readonly"
            if grant.keep:
                held.tenancy.forget_all()
                self._kept = held
            else:
                self._awaken_next()
                held.tenancy.end()

    def _awaken_next(self) -> None:
        """The test behind this one may have a machine that waits for it: it can answer until that begins."""
        if self._engine and self._following:
            self._engine.pool.awaken(self._expected(self._following))

    @contextmanager
    def lend_shared(
        self, fixture: str, node: pytest.Item | pytest.Collector, spec: MachineSpec, state: str
    ) -> Iterator[Machine]:
        """The machine of a wider `fixture` for its scope's `node`: its own, clean at the start, in `state`."""
        __tracebackhide__ = True
        where = node.nodeid or "the session"
        spec = self._fitted(spec, where)
        tenancy = self._taken(spec, state, where)
        machine = self._live[fixture, where] = self._machine(tenancy, spec, state, clean=True)
        try:
            yield machine
        finally:
            machine.release(where)
            del self._live[fixture, where]
            tenancy.end()

    @contextmanager
    def lend_further(
        self, node: pytest.Item, spec: MachineSpec, state: str, *, name: str | None
    ) -> Iterator[Machine]:
        """One more machine for the test `node`, called `name`, None for a number: clean, and its own."""
        __tracebackhide__ = True
        where = node.nodeid
        self.tree.require(state, f"vm_factory({state!r})")
        spec = self._fitted(spec, where)
        tenancy = self._taken(spec, state, where)
        taken = [fixture for fixture, owner in self._live if owner == where]
        key = f"vm_factory:{name or len(taken)}"
        machine = self._machine(tenancy, spec, state, clean=True)
        self._live[key, where] = machine
        try:
            yield machine
        finally:
            machine.release(where)
            del self._live[key, where]
            tenancy.end()

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
        for machine in self._machines_of(item):
            machine.begin()

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

    def report_sections(self, item: pytest.Item) -> list[tuple[str, str]]:
        """Title and text of what the machines of a failed test can say: the ends of their consoles."""
        return [
            (f"Console of {machine.name} during this test", text)
            for machine in self._machines_of(item)
            if (text := tail(machine.console_log, CONSOLE_LINES))
        ]

    def close(self) -> None:
        """End every machine, and remove what the run had on disk. Nothing happens the second time."""
        self._discard_kept()
        engine, self._engine = self._engine, None
        if engine:
            engine.close()

    def _machines_of(self, item: pytest.Item) -> list[Machine]:
        names = getattr(item, "fixturenames", ())
        return [machine for (fixture, _), machine in self._live.items() if fixture.partition(":")[0] in names]

    def _last(self, spec: MachineSpec, state: str) -> selection.Last | None:
        kept = self._kept
        if kept is None:
            return None
        fits = (kept.spec, kept.state) == (spec, state)
        return selection.Last(
            fits=fits, well=fits and kept.tenancy.lease.is_well(), failed=kept.failed, read_only=kept.read_only
        )

    def _machine(self, tenancy: Tenancy, spec: MachineSpec, state: str, *, clean: bool) -> Machine:
        assert self._engine  # noqa: S101 - there is a machine
        return Machine(
            tenancy.lease.clone,
            tenancy.lease.channel,
            spec=spec,
            state=state,
            deadlines=self._engine.deadlines,
            ssh_login=self._engine.access.ssh,
            at_terminal=self._at_terminal,
            tenancy=tenancy,
            untouched=clean,
        )

    def _taken(self, spec: MachineSpec, state: str, where: str) -> Tenancy:
        __tracebackhide__ = True
        snapshot = self._snapshot(spec, state, where)
        return self._opened(where).taken(snapshot)

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
