"""Snapshots of a machine within a test, and going back to them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import SpecError, VmsnapError
from pytest_vmsnap.host import is_stopped, remove_forward
from pytest_vmsnap.machine.network import Network
from pytest_vmsnap.machine.savepoints import Savepoints

if TYPE_CHECKING:
    from pytest_vmsnap.pool import Lease, Savepoint


class Snapshots(Network, Savepoints):
    """Snapshots of a machine within a test: disk, memory, processes and channel.

    They end with the test. A `Process` from before a revert is not restored: it raises `MachineReleased`.
    """

    _is_member = False  # of a cluster

    def _refusal(self) -> SpecError:
        if not self._is_member:
            return super()._refusal()
        return SpecError(
            "a machine of a cluster cannot be saved or reverted alone: its peers stay connected to it",
            hint="use snapshot, revert and rollback of the cluster, for all its machines at one moment",
        )

    def note_untouched(self, savepoint: Savepoint) -> None:
        """Nothing has used the machine since `savepoint`."""
        self._untouched = savepoint

    def unchanged_since(self) -> Savepoint | None:
        """The savepoint that the machine still is as it was at; None if it was used since."""
        return self._untouched if not self._forwards else None  # others reach it through these

    def move_to(self, lease: Lease) -> None:
        """Become the machine of `lease`, in place of `old`, and take over the forwarded ports."""
        old = self._backend.domain
        self._channel.close()
        self._backend, self._channel = lease.clone, lease.channel
        self.generation += 1
        self._history.follow(self._backend, self._channel)
        forwards, self._forwards = self._forwards, []
        for forward in forwards:
            if (pid := old.pid()) and is_stopped(pid):
                old.destroy()  # the monitor of a stopped QEMU never answers
            with suppress(VmsnapError):  # `old` may have ended, and its ports with it
                remove_forward(old, address=self.address, forward=forward, netdev=self._netdev())
            self.forward_port(forward.guest_port, host_port=forward.host_port, protocol=forward.protocol)
