"""The processor that a guest sees, as far as what is saved of it depends on that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vmsnap.host.accelerator import Accelerator

EMULATED = "maximum"
FIELDS = ("vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags", "vmx flags")


def guest_cpu(accelerator: Accelerator, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What names it: under emulation the model, under KVM the host's own (proc(5), ``/proc/cpuinfo``).

    ``host-passthrough`` says nothing: of hosted runners one is not as the other.
    """
    if accelerator.name != "kvm":
        return EMULATED
    first = cpuinfo.read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    found = {name.strip(): value for name, _, value in pairs}
    return "; ".join(f"{name}: {' '.join(sorted(found[name].split()))}" for name in FIELDS if name in found)
