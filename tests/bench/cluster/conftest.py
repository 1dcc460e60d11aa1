"""The cluster that is measured: three machines of one state, with memory in use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_vmsnap import state

if TYPE_CHECKING:
    from pytest_vmsnap import Cluster, Machine

USED_MIB = int(os.environ.get("VMSNAP_BENCH_USED", "128"))
FILL = f"head -c {USED_MIB << 20} /dev/urandom >/dev/shm/used"
NAMES = ("one", "two", "three")


@state
def filled(vm: Machine) -> None:
    vm.succeed(FILL, timeout=600)


@state(machines={name: {"state": filled} for name in NAMES})
def joined(vm_cluster: Cluster) -> None:
    """Nothing: the machines are on their network."""
