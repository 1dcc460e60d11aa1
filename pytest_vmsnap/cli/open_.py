"""Open a shell in a clone of a kept machine or of a state, which stays as it is."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

import shlex
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from pytest_vmsnap import evidence, states
from pytest_vmsnap.cli import machines, state_table, stored_states
from pytest_vmsnap.cli.interactive_session import InteractiveSession
from pytest_vmsnap.errors import HostError, UnknownState
from pytest_vmsnap.progress import Progress
from pytest_vmsnap.session import Engine, Timings
from pytest_vmsnap.states import NO_STATES
from pytest_vmsnap.store import LockOwner

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.machine import Machine
    from pytest_vmsnap.model import Settings
    from pytest_vmsnap.store import Store

NAME = "open"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vmsnap open`."""
    parser.add_argument(
        "machine_of",
        metavar="TEST|STATE",
        help="a test as `vmsnap kept` lists it, or a state: NAME or NAME@KEY; of a cluster, NAME/MACHINE",
    )
    parser.add_argument("--machine", metavar="LABEL", help="which of the test's machines, e.g. vm_module")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument(
        "--ssh", action="store_true", help="open it with an SSH client, if the image has an SSH server"
    )
    ways.add_argument("--console", action="store_true", help="open its serial console")
    ways.add_argument("--exec", metavar="CMD", dest="execute", help="run one command and exit")
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Open the machine until the user leaves; returns the status of the command or of the SSH client.

    Raises `UnknownState` if neither a kept machine nor a state matches, `StoreDamaged`, `RevertError`,
    `HostError`.
    """
    progress = Progress(lambda line: print(f"vmsnap: {line}", file=sys.stderr))
    engine = Engine(
        settings,
        tree=NO_STATES,
        hooks=arguments.hooks,
        progress=progress,
        timings=Timings(),
        lock_owner=LockOwner(),
        observe=lambda _: None,
    )
    with closing(engine):
        with progress.step(f"opening {arguments.machine_of}"):
            session = _session(engine, settings, arguments)
        try:
            if arguments.execute is not None:
                return _executed(session.machine, arguments.execute)
            if arguments.ssh:
                return _by_ssh(session.machine)
            if arguments.console:
                session.at_console()
            else:
                session.at_shell()
        finally:
            session.end()
    return 0


def _session(engine: Engine, settings: Settings, arguments: argparse.Namespace) -> InteractiveSession:
    """A session with the kept machine that the arguments name, or else with the state."""
    store, (written, machine) = engine.store, _parted(engine.store, settings, arguments.machine_of)
    if machines.matching(store, settings, written, arguments.machine):
        found = machines.find_machine(store, settings, written, arguments.machine)
        small = evidence.store_of(store, found)
        snapshot = states.use(small, engine.host, evidence.name_of(found))
        return InteractiveSession(
            engine, snapshot, source=small, title=found.note.title, state=found.note.state, machine=machine
        )
    try:
        state = stored_states.find_state(store, settings, written, newest=True)
    except UnknownState as error:
        raise UnknownState(
            f"neither a kept machine nor a state is called {written!r} in the store {store.path}",
            hint=f"{_there_is(store, settings)}\na state is in the store after a test has used it; "
            "pytest --vmsnap-keep=failed keeps the machines of failed tests",
        ) from error
    snapshot = states.use(store, engine.host, state.usage.name)
    return InteractiveSession(
        engine, snapshot, source=store, title=state.title, state=state.origin.name, machine=machine
    )


def _parted(store: Store, settings: Settings, written: str) -> tuple[str, str]:
    """What to open, and which machine of it: a test's name may have slashes of its own."""
    whole, _, machine = written.rpartition("/")
    if not whole or machines.matching(store, settings, written):
        return written, ""
    is_state = any(each.origin.name == whole.partition("@")[0] for each in stored_states.all_states(store))
    return (whole, machine) if is_state or machines.matching(store, settings, whole) else (written, "")


def _there_is(store: Store, settings: Settings) -> str:
    """A list of this project's kept machines and states, one line for each."""
    root = str(settings.root)
    kept = [each for each in evidence.kept(store) if each.note.project == root]
    whole = stored_states.without_members(stored_states.all_states(store))
    ours = [each for each in whole if each.origin.project == root]
    lines = [*machines.rows(kept), *state_table.rows(ours)]
    return "\n".join(["this project has:", *(f"  {line}" for line in lines or ["none"])])


def _by_ssh(machine: Machine) -> int:
    command = shlex.split(machine.ssh.command)
    try:
        return subprocess.run(command, check=False).returncode
    except FileNotFoundError:
        raise HostError(
            "this host has no SSH client",
            hint="Debian, Ubuntu: sudo apt install openssh-client; Fedora: openssh-clients; Arch: openssh",
        ) from None


def _executed(machine: Machine, command: str) -> int:
    result = machine.run(command)
    sys.stdout.buffer.write(result.stdout)
    sys.stdout.flush()
    sys.stderr.buffer.write(result.stderr)
    sys.stderr.flush()
    return result.returncode
