"""What a test holds."""

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
    from pytest_vmsnap.machine.body import Body, Deadlines
    from pytest_vmsnap.machine.interactive import AtTerminal
    from pytest_vmsnap.machine.trail import Trail
    from pytest_vmsnap.model import MachineSpec
    from pytest_vmsnap.pool import Tenancy
    from pytest_vmsnap.progress import Progress


class Machine(Waits, Files, Power, Snapshots, Screen, Ssh, Testinfra, Interactive):
    """A virtual machine in the hands of a test.

    `name` is its libvirt domain's, `spec` its `MachineSpec`, `state` the state that it started from. It may be
    used from several threads. Used after its test has ended, it raises `MachineReleased`.
    """

    def __init__(
        self,
        body: Body,
        channel: Channel,
        *,
        spec: MachineSpec,
        state: str,
        deadlines: Deadlines,
        ssh_login: SshLogin,
        at_terminal: AtTerminal = nullcontext,
        tenancy: Tenancy | None = None,
        untouched: bool = False,
        trail: Trail | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(body, channel, deadlines, trail, progress)
        self._tenancy = tenancy
        self._moments, self._rollbacks, self._kept_moments = {}, [], []
        self._untouched = tenancy.origin if tenancy and untouched else None
        self._ssh_login = ssh_login
        self._at_terminal = at_terminal
        self.spec = spec
        self.state = state

    def __repr__(self) -> str:
        return f"<Machine {self.name} in state {self.state}>"

    @property
    def domain(self) -> Any:
        """The ``libvirt.virDomain``, for what this class lacks."""
        self._expect_usable()
        return self._body.domain.handle

    def popen(
        self,
        cmd: str | Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> Process:
        """Start a command that goes on while the test does; the arguments are those of `run`.

        Raises `ChannelError` where it cannot be started; a command that is not found ends with status 127.
        """
        __tracebackhide__ = True
        text = cmd if isinstance(cmd, str) else shlex.join(cmd)
        done = self.run(f"set -- {shlex.quote(text)}\n{START}", cwd=cwd, env=env, user=user)
        words = done.text.split()
        if done.returncode or len(words) != 2:
            raise ChannelError(f"{text!r} could not be started: {done.stderr.decode(errors='replace').strip()}")
        return Process(self, text, pid=int(words[0]), place=words[1])

    def begin(self) -> None:
        """A test begins: what the console shows from here on is of that test."""
        self._trail.begin()

    def release(self, owner: str) -> None:
        """The test that it belonged to, `owner`, has ended: whoever uses it from now on is told so."""
        self._released = owner
