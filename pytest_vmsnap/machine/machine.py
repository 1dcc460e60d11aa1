"""The machine that a test gets."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import ChannelError
from pytest_vmsnap.machine.files import Files
from pytest_vmsnap.machine.interactive import Interactive
from pytest_vmsnap.machine.power import Power
from pytest_vmsnap.machine.process import START, Process
from pytest_vmsnap.machine.screen import Screen
from pytest_vmsnap.machine.snapshots import Snapshots
from pytest_vmsnap.machine.ssh import Ssh
from pytest_vmsnap.machine.testinfra import Testinfra
from pytest_vmsnap.machine.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_vmsnap.guest import Channel, SshLogin
    from pytest_vmsnap.machine.backend import Backend
    from pytest_vmsnap.machine.deadlines import Deadlines
    from pytest_vmsnap.machine.history import History
    from pytest_vmsnap.machine.interactive import AtTerminal
    from pytest_vmsnap.model import MachineSpec
    from pytest_vmsnap.pool import Allocation, Lease
    from pytest_vmsnap.progress import Progress


class Machine(Waits, Files, Power, Snapshots, Screen, Ssh, Testinfra, Interactive):
    """A virtual machine, as a test gets it.

    `name` is the name of its libvirt domain, `spec` its `MachineSpec`, `state` the name of the state that it
    started from. You can use it from several threads. After its test has ended, its methods raise
    `MachineReleased`.
    """

    def __init__(
        self,
        backend: Backend,
        channel: Channel,
        *,
        spec: MachineSpec,
        state: str,
        deadlines: Deadlines,
        ssh_login: SshLogin,
        at_terminal: AtTerminal = nullcontext,
        allocation: Allocation[Lease] | None = None,
        is_member: bool = False,
        untouched: bool = False,
        history: History | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(backend, channel, deadlines, history, progress)
        self._allocation = allocation
        self._is_member = is_member
        self._savepoints, self._rollbacks, self._all_savepoints = {}, [], []
        self._untouched = allocation.origin if allocation and untouched else None
        self._ssh_login = ssh_login
        self._at_terminal = at_terminal
        self.spec = spec
        self.state = state

    def __repr__(self) -> str:
        return f"<Machine {self._history.title} in state {self.state}>"

    @property
    def label(self) -> str:
        """What reports call it: its fixture, the name that the test gave it, or its name in its cluster."""
        return self._history.label

    @property
    def serial_console(self) -> str:
        """The UNIX socket of its serial console, for example for socat(1)."""
        return str(self._backend.domain.serial)

    @property
    def domain(self) -> Any:
        """The machine's ``libvirt.virDomain``, for anything that this class does not offer."""
        self._expect_usable()
        return self._backend.domain.handle

    def popen(
        self,
        cmd: str | Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> Process:
        """Start a command in the background and return its `Process`; the arguments are those of `run`.

        Raises `ChannelError` if the command cannot be started. A command that is not found ends with status
        127.
        """
        __tracebackhide__ = True
        text = cmd if isinstance(cmd, str) else shlex.join(cmd)
        done = self.run(f"set -- {shlex.quote(text)}\n{START}", cwd=cwd, env=env, user=user)
        words = done.text.split()
        if done.returncode or len(words) != 2:
            raise ChannelError(f"{text!r} could not be started: {done.stderr.decode(errors='replace').strip()}")
        return Process(self, text, pid=int(words[0]), place=words[1])

    def begin(self) -> None:
        """Note that a test begins: `console_log` and the recorded commands start from here."""
        self._history.begin()

    def release(self, owner: str) -> None:
        """Note that `owner`, which had the machine, has ended: using it now raises `MachineReleased`."""
        self._released = owner
