"""A machine that several tests may use, one after another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.guest import inventory

if TYPE_CHECKING:
    from pytest_vmsnap.guest import Inventory
    from pytest_vmsnap.model import MachineSpec
    from pytest_vmsnap.pool import Allocation, Lease

INVENTORY_SECONDS = 60.0


@dataclass(kw_only=True)
class ReusableMachine:
    """A machine that the test `owner` uses or used last, and that a later test may get.

    `failed`: a test that used it failed; `read_only`: all tests that used it are marked ``vm_readonly``.
    """

    allocation: Allocation[Lease]
    spec: MachineSpec
    state: str
    owner: str
    failed: bool = False
    read_only: bool = True
    audited: bool = False  # `changes` has compared listings for the current test
    _inventory: Inventory | None = None  # the guest's files and processes, if no test ran unaudited since

    def list_before(self, *, factor: float) -> None:
        """List the guest's files and processes before a read-only test, unless a current inventory is there.

        Raises `ChannelError` if they cannot be listed.
        """
        self.audited = False
        if self._inventory is None:
            self._inventory = inventory(self.allocation.lease.channel, timeout=INVENTORY_SECONDS * factor)

    def changes(self, *, factor: float) -> list[str]:
        """What has changed since `list_before`, one line for each change; raises `ChannelError` as it does."""
        if (before := self._inventory) is None:
            return []
        self._inventory = inventory(self.allocation.lease.channel, timeout=INVENTORY_SECONDS * factor)
        self.audited = True
        return before.changes_to(self._inventory)

    def forget_inventory(self) -> None:
        """Drop the inventory, because a test may change the guest."""
        self._inventory = None
