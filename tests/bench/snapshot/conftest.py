"""What the benchmark's machines have in their memory before they are saved."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vmsnap import Machine

USED_MIB = int(os.environ.get("VMSNAP_BENCH_USED", "0"))
FILL = f"mount -o remount,size={USED_MIB + 64}M /dev/shm; head -c {USED_MIB << 20} /dev/urandom >/dev/shm/used"


def pytest_vmsnap_prepare(vm: Machine) -> None:
    if USED_MIB:
        vm.succeed(FILL, timeout=600)
