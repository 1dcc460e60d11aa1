"""What a test holds of several machines."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import MachineReleased
from pytest_vmsnap.machine.cluster_network import ClusterNetwork
from pytest_vmsnap.machine.machine import Machine
from pytest_vmsnap.machine.savepoints import Savepoints

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.guest import SshLogin
    from pytest_vmsnap.machine.deadlines import Deadlines
    from pytest_vmsnap.machine.history import History
    from pytest_vmsnap.machine.interactive import AtTerminal
    from pytest_vmsnap.model import ClusterSpec
    from pytest_vmsnap.network.switch import Switch
    from pytest_vmsnap.pool import Allocation, ClusterLease, Savepoint
    from pytest_vmsnap.progress import Progress


class Cluster(Savepoints, Mapping[str, "Machine"]):
    """Machines on a private network, saved and reverted as one: a mapping of their names to `Machine`.

    `network` is their private network, with its addresses and faults. `snapshot`, `revert` and `rollback` work
    on all machines at one moment; connections between them go on after a revert. Used after its test has
    ended, it raises `MachineReleased`.
    """

    WHAT = "cluster"

    def __init__(
        self,
        lease: ClusterLease,
        machines: Mapping[str, Machine],
        *,
        state: str,
        deadlines: Deadlines,
        allocation: Allocation[ClusterLease] | None = None,
        untouched: bool = False,
    ) -> None:
        self._lease = lease
        self._machines = dict(machines)
        self._deadlines = deadlines
        self._allocation = allocation
        self._savepoints, self._rollbacks, self._all_savepoints = {}, [], []
        self._released = ""
        self.network = ClusterNetwork(self._switch)
        self.network.reset(lease.switch.faults)
        self.state = state
        self._untouched = None
        if allocation and untouched:
            self._note_untouched(allocation.origin)

    @classmethod
    def of(
        cls,
        lease: ClusterLease,
        spec: ClusterSpec,
        *,
        state: str,
        deadlines: Deadlines,
        ssh_login: SshLogin,
        histories: Mapping[str, History],
        progress: Progress,
        at_terminal: AtTerminal = nullcontext,
        allocation: Allocation[ClusterLease] | None = None,
    ) -> Cluster:
        """The cluster of `lease`, whose machines are those of `spec`; `histories` has one for each name.

        With `allocation`, it can go back; it is then as it was saved.
        """
        machines = {
            member.name: Machine(
                lease.leases[member.name].clone,
                lease.leases[member.name].channel,
                spec=member.spec,
                state=state,
                deadlines=deadlines,
                ssh_login=ssh_login,
                at_terminal=at_terminal,
                history=histories[member.name],
                is_member=True,
                progress=progress,
            )
            for member in spec.members
        }
        return cls(
            lease, machines, state=state, deadlines=deadlines, allocation=allocation, untouched=bool(allocation)
        )

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"the cluster of {', '.join(machine.name for machine in self._machines.values())}"

    def __repr__(self) -> str:
        return f"<Cluster {', '.join(self._machines)} in state {self.state}>"

    def __getitem__(self, name: str) -> Machine:
        __tracebackhide__ = True
        if name not in self._machines:
            raise KeyError(f"there is no machine {name!r} in this cluster: its machines are {', '.join(self)}")
        return self._machines[name]

    def __contains__(self, name: object) -> bool:
        return name in self._machines

    def __iter__(self) -> Iterator[str]:
        return iter(self._machines)

    def __len__(self) -> int:
        return len(self._machines)

    def begin(self) -> None:
        """A test begins: what the consoles show from now on belongs to it."""
        for machine in self._machines.values():
            machine.begin()

    def release(self, owner: str) -> None:
        """The test that it belonged to, `owner`, has ended."""
        self._released = owner
        for machine in self._machines.values():
            machine.release(owner)

    def _switch(self) -> Switch:
        self._expect_usable()
        return self._lease.switch

    def _expect_usable(self) -> None:
        __tracebackhide__ = True
        if self._released:
            raise MachineReleased(
                f"this cluster belonged to {self._released}, which has ended",
                hint="request a cluster with a fixture of this test",
            )

    def _note_untouched(self, savepoint: Savepoint) -> None:
        self._untouched = savepoint
        for machine in self._machines.values():
            machine.note_untouched(savepoint)

    def unchanged_since(self) -> Savepoint | None:
        machines = self._machines.values()
        same = all(machine.unchanged_since() is self._untouched for machine in machines)
        return self._untouched if same and not self.network.faults else None

    def move_to(self, lease: ClusterLease) -> None:
        self._lease = lease
        for name, machine in self._machines.items():
            machine.move_to(lease.leases[name])
        self.network.reset(lease.switch.faults)

    def _revert_to(self, savepoint: Savepoint) -> None:
        __tracebackhide__ = True
        super()._revert_to(savepoint)
        self._note_untouched(savepoint)
