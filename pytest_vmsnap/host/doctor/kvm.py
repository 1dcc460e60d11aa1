"""The accelerator: the device, who may open it, what the processor supports, and a test with a guest."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.host import accelerator
from pytest_vmsnap.host.accelerator import NO_DEVICE, NO_GUEST
from pytest_vmsnap.host.doctor.from_errors import tried
from pytest_vmsnap.host.permissions import name_of
from pytest_vmsnap.model import Finding, not_checked, ok

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.host.kvm_probe import User
    from pytest_vmsnap.model import Accel, Status

# kernel.org, "Nested Guests": whether guests of this KVM may use KVM themselves
NESTED = {name: Path(f"/sys/module/{name}/parameters/nested") for name in ("kvm_intel", "kvm_amd")}
NAMES = ("kvm-device", "kvm-cpu", "kvm-permission")


def prerequisites(wanted: Accel, user: User | None) -> Iterator[Finding]:
    """Check what KVM needs; `user` is the user that QEMU runs as, None for the current user.

    A problem is a failure if `wanted` is KVM, and a warning if emulation is acceptable.
    """
    if wanted == "tcg":
        yield from (not_checked(name, "vmsnap_accel=tcg", status="ok") for name in NAMES)
        return
    severity: Status = "failure" if wanted == "kvm" else "warning"
    yield device(severity)
    yield processor(severity)
    yield permission(severity, user)


def device(severity: Status) -> Finding:
    """Whether the device exists, and who owns it."""
    path = accelerator.DEVICE
    try:
        found = path.stat()
    except OSError:
        return Finding(name="kvm-device", status=severity, found=f"{path} is missing", advice=NO_DEVICE)
    owner, mode = name_of(found.st_uid), stat.filemode(found.st_mode)
    return ok("kvm-device", f"{path} ({mode}, user {owner}, group {_group(found.st_gid)})")


def permission(severity: Status, user: User | None) -> Finding:
    """Whether the user that QEMU runs as may open the device, and through which group."""
    path = accelerator.DEVICE
    if not path.exists():
        return not_checked("kvm-permission", f"no {path}")
    if refused := accelerator.access_problem(user):
        return Finding(name="kvm-permission", status=severity, found=refused.reason, advice=refused.hint)
    uid = user[0] if user else os.geteuid()
    return ok("kvm-permission", f"{path} opens for user {name_of(uid)}{_membership(uid)}")


def processor(severity: Status) -> Finding:
    """Whether the CPU supports KVM, and whether guests may use KVM themselves."""
    flags = accelerator.cpu_flags()
    own = " or ".join(sorted({"vmx", "svm"} & flags))
    if own:
        return ok("kvm-cpu", f"the CPU has {own}; {_nested()}")
    virtual = "; this host is itself a virtual machine" if "hypervisor" in flags else ""
    return Finding(
        name="kvm-cpu",
        status=severity,
        found=f"the CPU has neither vmx nor svm{virtual}",
        advice=NO_GUEST if virtual else NO_DEVICE,
    )


def probe(wanted: Accel, emulator: Path, *, store: Path, user: User | None) -> Finding:
    """Choose the accelerator with a new probe guest; keep the result in the `store` if it is writable."""

    def choose() -> accelerator.Accelerator:
        with tempfile.TemporaryDirectory(prefix="vmsnap-doctor-") as place:
            cache = store if os.access(store, os.W_OK) else Path(place)
            return accelerator.choose(wanted, emulator=emulator, cache=cache, as_user=user, force_probe=True)

    def told(it: accelerator.Accelerator) -> str:
        return f"{it.name}: {it.reason}"

    found, finding = tried("accelerator", choose, told)
    if found and found.name == "tcg" and wanted != "tcg":
        slower = f"tcg, software emulation, 10 to 50 times slower: {found.reason}"
        return Finding(name="accelerator", status="warning", found=slower, advice=found.hint)
    return finding


def _membership(uid: int) -> str:
    gid = accelerator.DEVICE.stat().st_gid
    if uid == 0:
        return ""
    return f", a member of its group {_group(gid)}" if gid in accelerator.registered_groups(uid) else ""


def _group(gid: int) -> str:
    return accelerator.group_name(gid) if gid else "root"


def _nested() -> str:
    for module, path in NESTED.items():
        try:
            value = path.read_text().strip()
        except OSError:
            continue
        allowed = "may" if value in ("Y", "1") else "may not"
        return f"guests {allowed} use KVM themselves ({module}.nested={value})"
    return "whether guests may use KVM themselves is unknown (kvm_intel and kvm_amd are not loaded)"
