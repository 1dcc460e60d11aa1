"""The accelerator: the device, who may open it, what the processor promises, and the proof."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.host import accelerator
from pytest_vmsnap.host.accelerator import NO_DEVICE, NO_GUEST
from pytest_vmsnap.host.access import name_of
from pytest_vmsnap.host.doctor.trying import tried
from pytest_vmsnap.model import Finding, not_asked, ok

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.host.kvm_probe import User
    from pytest_vmsnap.model import Accel, Status

# kernel.org, "Nested Guests": whether a guest of this KVM may have KVM itself
NESTED = {name: Path(f"/sys/module/{name}/parameters/nested") for name in ("kvm_intel", "kvm_amd")}
NAMES = ("kvm-device", "kvm-cpu", "kvm-permission")


def circumstances(wanted: Accel, user: User | None) -> Iterator[Finding]:
    """What KVM needs; `user` is whom QEMU runs as, None for who we are.

    What is amiss is a failure where `wanted` is KVM, and a warning where emulation will do.
    """
    if wanted == "tcg":
        yield from (not_asked(name, "vmsnap_accel=tcg", status="ok") for name in NAMES)
        return
    amiss: Status = "failure" if wanted == "kvm" else "warning"
    yield device(amiss)
    yield processor(amiss)
    yield permission(amiss, user)


def device(amiss: Status) -> Finding:
    """Whether there is one, and whose."""
    path = accelerator.DEVICE
    try:
        found = path.stat()
    except OSError:
        return Finding(name="kvm-device", status=amiss, found=f"{path} is missing", advice=NO_DEVICE)
    owner, mode = name_of(found.st_uid), stat.filemode(found.st_mode)
    return ok("kvm-device", f"{path} ({mode}, user {owner}, group {_group(found.st_gid)})")


def permission(amiss: Status, user: User | None) -> Finding:
    """Whether the one who QEMU runs as may open it, and by what."""
    path = accelerator.DEVICE
    if not path.exists():
        return not_asked("kvm-permission", f"no {path}")
    if refused := accelerator.refused(user):
        return Finding(name="kvm-permission", status=amiss, found=refused.reason, advice=refused.hint)
    uid = user[0] if user else os.geteuid()
    return ok("kvm-permission", f"{path} opens for user {name_of(uid)}{_membership(uid)}")


def processor(amiss: Status) -> Finding:
    """What it promises to KVM, and whether guests may have KVM themselves."""
    flags = accelerator.cpu_flags()
    own = " or ".join(sorted({"vmx", "svm"} & flags))
    if own:
        return ok("kvm-cpu", f"the CPU has {own}; {_nested()}")
    virtual = "; this host is itself a virtual machine" if "hypervisor" in flags else ""
    return Finding(
        name="kvm-cpu",
        status=amiss,
        found=f"the CPU shows neither vmx nor svm{virtual}",
        advice=NO_GUEST if virtual else NO_DEVICE,
    )


def proof(wanted: Accel, emulator: Path, *, store: Path, user: User | None) -> Finding:
    """The accelerator that machines get, by a probe guest that is run now; a `store` that is there keeps it."""

    def choose() -> accelerator.Accelerator:
        with tempfile.TemporaryDirectory(prefix="vmsnap-doctor-") as place:
            cache = store if os.access(store, os.W_OK) else Path(place)
            return accelerator.choose(wanted, emulator=emulator, cache=cache, as_user=user, anew=True)

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
    return f", who is of its group {_group(gid)}" if gid in accelerator.registered_groups(uid) else ""


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
    return "whether guests may use KVM themselves is not told (kvm_intel and kvm_amd are not loaded)"
