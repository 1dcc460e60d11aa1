"""An interactive session with a machine: its shell, and commands to save and revert it."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pytest_vmsnap import evidence, states
from pytest_vmsnap.errors import RevertError, SpecError, StoreDamaged, VmsnapError
from pytest_vmsnap.evidence import Note
from pytest_vmsnap.guest import ESCAPE, Escaped, attach, terminal
from pytest_vmsnap.machine import Cluster, Machine
from pytest_vmsnap.pool import ClusterLease
from pytest_vmsnap.store import EntryName, damage_of

if TYPE_CHECKING:
    from pytest_vmsnap.fork import Saved
    from pytest_vmsnap.session import Engine
    from pytest_vmsnap.store import Store

HELP = """\
  snapshot [NAME]    save the machine as it is now
  revert [NAME]      go back to snapshot NAME, or without NAME to the machine as opened
  save --as NAME     keep the machine beyond this session: `vmsnap open NAME`
  console            its serial console
  machine NAME       another machine of the cluster
  exit               leave; the machine ends
  Enter              back to the shell"""


class InteractiveSession:
    """A clone of `snapshot`, an entry of the store `source`, for interactive use; `end` ends it.

    Of a cluster, `machine` is the one whose shell opens; empty for the first.

    Raises `StoreDamaged` if the snapshot is damaged, `RevertError` if the clone cannot be made.
    """

    def __init__(
        self, engine: Engine, snapshot: Saved, *, source: Store, title: str, state: str, machine: str = ""
    ) -> None:
        self._engine = engine
        self._source = source
        self._title = title
        try:
            self._allocation = engine.allocate(snapshot)
        except (RevertError, StoreDamaged) as error:
            name = EntryName(kind=states.KIND, key=snapshot.directory.name)
            if not (damaged := damage_of(source, name)):
                raise
            raise StoreDamaged(
                f"{title} cannot be opened, it is damaged: {'; '.join(each.what for each in damaged)}",
                hint="`vmsnap verify` checks the whole store; the next run that needs a state rebuilds it",
            ) from error
        self._names: list[str] = []
        deadlines, login = engine.deadlines, engine.channel_factory.ssh
        lease = self._allocation.lease
        self._machines = {
            name: Machine(
                each.clone,
                each.channel,
                spec=each.clone.snapshot.spec,
                state=state,
                deadlines=deadlines,
                ssh_login=login,
                allocation=None if name else self._allocation,
                is_member=bool(name),
                untouched=not name,
            )
            for name, each in lease.leases.items()
        }
        self._whole: Machine | Cluster = (
            Cluster(lease, self._machines, state=state, deadlines=deadlines, allocation=self._allocation)
            if isinstance(lease, ClusterLease)
            else self._machines[""]
        )
        self._at = self._named(machine) if machine else next(iter(self._machines))

    @property
    def machine(self) -> Machine:
        """The machine that the shell is in."""
        return self._machines[self._at]

    def _named(self, machine: str) -> str:
        if machine not in self._machines:
            raise SpecError(
                f"{self._title} has no machine {machine!r}",
                hint=f"its machines are {', '.join(self._machines)}"
                if self._at_cluster
                else "it is one machine",
            )
        return machine

    @property
    def _where(self) -> str:
        return f"{self._title}/{self._at}" if self._at else self._title

    @property
    def _at_cluster(self) -> bool:
        return "" not in self._machines

    def end(self) -> None:
        """End the machine."""
        self._whole.release("the person at the terminal")
        self._allocation.end()

    def at_shell(self) -> None:
        """Open a shell in the guest, and return when the user leaves it; Ctrl-] offers the commands in `HELP`.

        Raises `HostError` without a terminal.
        """
        print(f"a shell in {self._where}: Ctrl-] and Enter for snapshot, revert and save; `exit` leaves")
        while True:
            try:
                with terminal(escape=ESCAPE, who="vmsnap open", hint="for one command: --exec CMD") as person:
                    person.show(b"\r\n")
                    self._allocation.lease.leases[self._at].channel.interact(person)
                    person.show(b"\r\n")
            except Escaped:
                if not self._asked():
                    return
            else:
                return

    def at_console(self) -> None:
        """Open the guest's serial console, and return when the user leaves it.

        Raises `HostError` without a terminal.
        """
        print(f"the serial console of {self._where}; Ctrl-] leaves")
        with terminal(escape=ESCAPE, who="vmsnap open --console", hint="for one command: --exec CMD") as person:
            try:
                attach(self._allocation.lease.leases[self._at].clone.domain, person)
            except Escaped:
                person.show(b"\r\n")

    def _asked(self) -> bool:
        """Read and run commands; returns whether to go back to the shell."""
        print(f"\n{HELP}")
        while True:
            try:
                words = shlex.split(input("vmsnap> "))
            except EOFError:
                return False
            except ValueError as error:
                print(f"vmsnap: {error}")
                continue
            if not words:
                return True
            if words == ["exit"]:
                return False
            try:
                self._do(words)
            except VmsnapError as error:
                print(f"vmsnap: {error}")

    def _do(self, words: list[str]) -> None:
        match words:
            case ["snapshot"]:
                self._snapshot(f"snapshot-{len(self._names) + 1}")
            case ["snapshot", name]:
                self._snapshot(name)
            case ["revert"]:
                self._whole.revert()
                print(f"reverted to {self._title}, as opened")
            case ["revert", name]:
                self._whole.revert(name)
                print(f"reverted to {name}")
            case ["save", "--as", name]:
                self._save(name)
            case ["machine", name] if self._at_cluster:
                self._at = self._named(name)
                print(f"Enter for a shell in {name}")
            case ["console"]:
                self.at_console()
            case _:
                print(HELP)

    def _snapshot(self, name: str) -> None:
        self._whole.snapshot(name)
        self._names.append(name)
        print(f"saved: `revert {name}` goes back to it")

    def _save(self, name: str) -> None:
        taken = [each for each in evidence.kept(self._engine.store) if each.note.title == name]
        if taken:
            raise SpecError(
                f"a kept machine is already called {name!r}",
                hint="remove it with `vmsnap drop`, or choose another name",
            )
        savepoint = self._allocation.save_as_is()
        try:
            note = Note(
                title=name,
                label="vm_cluster" if self._at_cluster else "vm",
                state=self._whole.state,
                why=f"saved by hand, from {self._title}",
                project=str(self._engine.settings.root),
            )
            found = evidence.keep(savepoint, note, source=self._source, target=self._engine.store)
        finally:
            self._allocation.forget(savepoint)
        print(f"kept: vmsnap open {shlex.quote(name)} ({found.usage.size >> 20} MiB)")
