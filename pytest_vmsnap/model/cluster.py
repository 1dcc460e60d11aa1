"""The cluster that a test asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import SpecError
from pytest_vmsnap.model.spec import MachineSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

FEWEST, MOST = 2, 8
HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123, 2.1; lower case, as guests show it


def expect_machines(machines: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `SpecError` for a number of machines, a name, or a field of a machine that cannot be.

    Each field is checked on its own: what it is combined with is known only when the test runs.
    """
    if not FEWEST <= len(machines) <= MOST:
        raise SpecError(f"a cluster has {FEWEST} to {MOST} machines, not {len(machines)}")
    for name, given in machines.items():
        if not isinstance(name, str) or not HOST_NAME.fullmatch(name) or name.isdigit():
            raise SpecError(
                f"{name!r} cannot be the name of a machine: it becomes its host name",
                hint="use lower-case letters, digits and -, at most 63, a letter or digit at both ends",
            )
        if not isinstance(given, dict):
            raise SpecError(f"{name}={given!r}: give the machine as a dict, e.g. {{'memory': 1024}}")
        for key, value in given.items():
            if key == "state":
                if not isinstance(value, str) or not value:
                    raise SpecError(f"{name}: state={value!r} is not the name of a state")
                continue
            try:
                MachineSpec(kernel="any").replace(**{key: value})
            except SpecError as error:
                raise SpecError(f"{name}: {error.message}", hint=error.hint) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterMember:
    """A machine of a cluster: its `name`, also its host name, its `spec`, and the `state` it starts from."""

    name: str
    spec: MachineSpec
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """The machines of a cluster, in their order."""

    members: tuple[ClusterMember, ...]

    @classmethod
    def of(cls, machines: Mapping[str, Mapping[str, Any]], spec: MachineSpec, *, base: str) -> ClusterSpec:
        """The cluster of `machines`: for each name, its ``state`` (default: `base`), and changes to `spec`.

        Raises as `expect_machines` does, and `SpecError` for fields that do not fit together.
        """
        expect_machines(machines)
        members = []
        for name, given in machines.items():
            changes = dict(given)
            state = changes.pop("state", base)
            members.append(ClusterMember(name=name, spec=spec.replace(**changes), state=state))
        return cls(members=tuple(members))

    def replace_each(self, **changes: Any) -> ClusterSpec:
        """This cluster with `changes` to the specs that leave these fields to the host (None)."""
        members = []
        for member in self.members:
            missing = {name: value for name, value in changes.items() if getattr(member.spec, name) is None}
            members.append(
                ClusterMember(name=member.name, spec=member.spec.replace(**missing), state=member.state)
            )
        return ClusterSpec(members=tuple(members))

    @property
    def memory(self) -> int:
        """The memory of all machines in MiB."""
        return sum(member.spec.memory for member in self.members)
