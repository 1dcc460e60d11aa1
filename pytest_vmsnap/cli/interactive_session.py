"""An interactive session with a machine: its shell, and commands to save and revert it."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pytest_vmsnap import evidence, states
from pytest_vmsnap.errors import RevertError, SpecError, StoreDamaged, VmsnapError
from pytest_vmsnap.evidence import Note
from pytest_vmsnap.guest import ESCAPE, Escaped, attach, terminal
from pytest_vmsnap.machine import Machine
from pytest_vmsnap.store import EntryName, damage_of

if TYPE_CHECKING:
    from pytest_vmsnap.fork import Snapshot
    from pytest_vmsnap.session import Engine
    from pytest_vmsnap.store import Store

HELP = """\
  snapshot [NAME]    save the machine as it is now
  revert [NAME]      go back to snapshot NAME, or without NAME to the machine as opened
  save --as NAME     keep the machine beyond this session: `vmsnap open NAME`
  console            its serial console
  exit               leave; the machine ends
  Enter              back to the shell"""


class InteractiveSession:
    """A clone of `snapshot`, an entry of the store `source`, for interactive use; `end` ends it.

    Raises `StoreDamaged` if the snapshot is damaged, `RevertError` if the clone cannot be made.
    """

    def __init__(self, engine: Engine, snapshot: Snapshot, *, source: Store, title: str, state: str) -> None:
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
        self.machine = Machine(
            self._allocation.lease.clone,
            self._allocation.lease.channel,
            spec=snapshot.spec,
            state=state,
            deadlines=engine.deadlines,
            ssh_login=engine.channel_factory.ssh,
            allocation=self._allocation,
            untouched=True,
        )

    def end(self) -> None:
        """End the machine."""
        self.machine.release("the person at the terminal")
        self._allocation.end()

    def at_shell(self) -> None:
        """Open a shell in the guest, and return when the user leaves it; Ctrl-] offers the commands in `HELP`.

        Raises `HostError` without a terminal.
        """
        print(f"a shell in {self._title}: Ctrl-] and Enter for snapshot, revert and save; `exit` leaves")
        while True:
            try:
                with terminal(escape=ESCAPE, who="vmsnap open", hint="for one command: --exec CMD") as person:
                    person.show(b"\r\n")
                    self._allocation.lease.channel.interact(person)
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
        print(f"the serial console of {self._title}; Ctrl-] leaves")
        with terminal(escape=ESCAPE, who="vmsnap open --console", hint="for one command: --exec CMD") as person:
            try:
                attach(self._allocation.lease.clone.domain, person)
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
                self.machine.revert()
                print(f"reverted to {self._title}, as opened")
            case ["revert", name]:
                self.machine.revert(name)
                print(f"reverted to {name}")
            case ["save", "--as", name]:
                self._save(name)
            case ["console"]:
                self.at_console()
            case _:
                print(HELP)

    def _snapshot(self, name: str) -> None:
        self.machine.snapshot(name)
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
                label="vm",
                state=self.machine.state,
                why=f"saved by hand, from {self._title}",
                project=str(self._engine.settings.root),
            )
            found = evidence.keep(savepoint, note, source=self._source, target=self._engine.store)
        finally:
            self._allocation.forget(savepoint)
        print(f"kept: vmsnap open {shlex.quote(name)} ({found.usage.size >> 20} MiB)")
