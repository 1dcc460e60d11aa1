"""What a test holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_vmsnap.machine.body import mark_of
from pytest_vmsnap.machine.files import Files
from pytest_vmsnap.machine.power import Power
from pytest_vmsnap.machine.waits import Waits

if TYPE_CHECKING:
    from pytest_vmsnap.guest import Channel
    from pytest_vmsnap.machine.body import Body, Deadlines
    from pytest_vmsnap.model import MachineSpec


class Machine(Waits, Files, Power):
    """A virtual machine in the hands of a test.

    `name` is its libvirt domain's, `spec` its `MachineSpec`, `state` the state that it started from. It may be
    used from several threads. Used after its test has ended, it raises `MachineReleased`.
    """

    def __init__(
        self, body: Body, channel: Channel, *, spec: MachineSpec, state: str, deadlines: Deadlines
    ) -> None:
        super().__init__(body, channel, deadlines)
        self.spec = spec
        self.state = state

    def __repr__(self) -> str:
        return f"<Machine {self.name} in state {self.state}>"

    @property
    def name(self) -> str:
        """The name of its libvirt domain."""
        return self._body.domain.name

    @property
    def domain(self) -> Any:
        """The ``libvirt.virDomain``, for what this class lacks."""
        self._expect_usable()
        return self._body.domain.handle

    def begin(self) -> None:
        """A test begins: what the console shows from here on is of that test."""
        self._mark = mark_of(self._body)

    def release(self, owner: str) -> None:
        """The test that it belonged to, `owner`, has ended: whoever uses it from now on is told so."""
        self._released = owner
