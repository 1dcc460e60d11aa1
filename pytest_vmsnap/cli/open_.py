"""Open a kept machine, or a state: a clone of it, with a shell on it. Opening it again gives the same again."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

import shlex
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from pytest_vmsnap import evidence, states
from pytest_vmsnap.cli import listing, machines
from pytest_vmsnap.cli.desk import Desk
from pytest_vmsnap.errors import HostError, UnknownState
from pytest_vmsnap.progress import Progress
from pytest_vmsnap.session import Engine, Timings
from pytest_vmsnap.states import NO_STATES
from pytest_vmsnap.store import Asker

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.machine import Machine
    from pytest_vmsnap.model import Settings
    from pytest_vmsnap.store import Store

NAME = "open"


def add(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "machine_of",
        metavar="TEST|STATE",
        help="a test as `vmsnap kept` lists it, or a state: NAME or NAME@KEY",
    )
    parser.add_argument("--machine", metavar="LABEL", help="which of the test's machines, e.g. vm_module")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--ssh", action="store_true", help="by an SSH client, if the image has a server")
    ways.add_argument("--console", action="store_true", help="at its serial console")
    ways.add_argument("--exec", metavar="CMD", dest="execute", help="run one command, and end")
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Open it, and stay until the person leaves."""
    progress = Progress(lambda line: print(f"vmsnap: {line}", file=sys.stderr))
    engine = Engine(
        settings,
        tree=NO_STATES,
        hooks=arguments.hooks,
        progress=progress,
        timings=Timings(),
        asker=Asker(),
        observe=lambda _: None,
    )
    with closing(engine):
        with progress.step(f"opening {arguments.machine_of}"):
            desk = _desk(engine, settings, arguments)
        try:
            if arguments.execute is not None:
                return _executed(desk.machine, arguments.execute)
            if arguments.ssh:
                return _by_ssh(desk.machine)
            if arguments.console:
                desk.at_console()
            else:
                desk.at_shell()
        finally:
            desk.end()
    return 0


def _desk(engine: Engine, settings: Settings, arguments: argparse.Namespace) -> Desk:
    """The machine that is meant: of a kept test first, else of a state."""
    store, written = engine.store, arguments.machine_of
    if machines.matching(store, settings, written, arguments.machine):
        found = machines.chosen(store, settings, written, arguments.machine)
        small = evidence.store_of(store, found)
        snapshot = states.use(small, engine.host, evidence.name_of(found))
        return Desk(engine, snapshot, source=small, title=found.note.title, state=found.note.state)
    try:
        state = listing.chosen(store, settings, written, newest=True)
    except UnknownState as error:
        raise UnknownState(
            f"neither a kept machine nor a state is called {written!r} in the store {store.path}",
            hint=f"{_there_is(store, settings)}\na state is there once a test has used it; "
            "a failed test's machine with pytest --vmsnap-keep=failed",
        ) from error
    snapshot = states.use(store, engine.host, state.holding.name)
    return Desk(engine, snapshot, source=store, title=state.title, state=state.origin.name)


def _there_is(store: Store, settings: Settings) -> str:
    """What could be opened of this project, a line for each."""
    root = str(settings.root)
    kept = [each for each in evidence.kept(store) if each.note.project == root]
    ours = [each for each in listing.kept(store) if each.origin.project == root]
    lines = [*machines.rows(kept), *listing.rows(ours)]
    return "\n".join(["of this project there are:", *(f"  {line}" for line in lines or ["none"])])


def _by_ssh(machine: Machine) -> int:
    command = shlex.split(machine.ssh.command)
    try:
        return subprocess.run(command, check=False).returncode
    except FileNotFoundError:
        raise HostError(
            "there is no SSH client here",
            hint="Debian, Ubuntu: sudo apt install openssh-client; Fedora: openssh-clients; Arch: openssh",
        ) from None


def _executed(machine: Machine, command: str) -> int:
    result = machine.run(command)
    sys.stdout.buffer.write(result.stdout)
    sys.stdout.flush()
    sys.stderr.buffer.write(result.stderr)
    sys.stderr.flush()
    return result.returncode
