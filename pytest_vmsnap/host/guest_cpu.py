"""The processor that a guest sees, as far as a saved state depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vmsnap.host.accelerator import Accelerator

EMULATED = "maximum"
FIELDS = ("vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags", "vmx flags")


def guest_cpu(accelerator: Accelerator, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """A text that identifies the processor: under KVM the host's (proc(5), ``/proc/cpuinfo``), else the model.

    ``host-passthrough`` alone would not do: hosted runners differ in their CPUs.
    """
    if accelerator.name != "kvm":
        return EMULATED
    first = cpuinfo.read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    found = {name.strip(): value for name, _, value in pairs}
    return "; ".join(f"{name}: {' '.join(sorted(found[name].split()))}" for name in FIELDS if name in found)
