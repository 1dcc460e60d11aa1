"""The processor that a guest sees, as far as a saved state depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement

if TYPE_CHECKING:
    from pytest_vmsnap.host.accelerator import Accelerator

HOST = "host"
EMULATED = "maximum"
FIELDS = ("vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags", "vmx flags")
# The levels of the x86-64 psABI (System V ABI, AMD64 supplement, "Micro-Architecture Levels"), which neither
# QEMU nor libvirt has as models: what each adds to QEMU's qemu64, with libvirt's names of the features, where
# lzcnt is "abm". With xsave but not xsaveopt, which all processors of v3 have, Linux hangs at its start.
LEVEL_MODEL = "qemu64"
_V2 = ("cx16", "lahf_lm", "popcnt", "pni", "sse4.1", "sse4.2", "ssse3")
_V3 = (*_V2, "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave", "xsaveopt")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
LEVELS = {"x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}


def guest_cpu(accelerator: Accelerator, model: str = HOST, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """A text that identifies the processor: the `model`, and under KVM its vendor; or what ``host`` means.

    Under KVM that is what proc(5) says of it (``/proc/cpuinfo``): ``host-passthrough`` alone would not do,
    since hosted runners differ in their CPUs. Under emulation it is all that QEMU can emulate.
    """
    if accelerator.name != "kvm":
        return EMULATED if model == HOST else model
    first = cpuinfo.read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    found = {name.strip(): value for name, _, value in pairs}
    if model != HOST:  # of a named model, QEMU takes the vendor from the host (target/i386/host-cpu.c)
        return f"{model}, {found.get('vendor_id', '').strip()}"
    return "; ".join(f"{name}: {' '.join(sorted(found[name].split()))}" for name in FIELDS if name in found)


def cpu_element(kind: str, model: str) -> Element:
    """libvirt's ``<cpu>`` of the `model` for a domain of `kind` (libvirt, "Domain XML format", CPU model).

    Under KVM, libvirt refuses a named model that the host's processor cannot be.
    """
    if model == HOST:
        if kind == "kvm":
            return Element("cpu", mode="host-passthrough", check="none", migratable="on")
        return Element("cpu", mode=EMULATED, check="none")
    found = Element("cpu", mode="custom", match="exact", check="partial" if kind == "kvm" else "none")
    SubElement(found, "model", fallback="forbid").text = LEVEL_MODEL if model in LEVELS else model
    for feature in LEVELS.get(model, ()):
        SubElement(found, "feature", policy="require", name=feature)
    if model in LEVELS:  # libvirt's qemu64 has it, and hosts with another vendor's processor do not
        SubElement(found, "feature", policy="disable", name="svm")
    return found
