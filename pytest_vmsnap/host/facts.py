"""The facts about this host."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_vmsnap.errors import HostError
from pytest_vmsnap.host import accelerator, emulator
from pytest_vmsnap.host.domain_xml import MACHINE_TYPE
from pytest_vmsnap.host.guest_cpu import HOST, LEVELS, guest_cpu

if TYPE_CHECKING:
    from pytest_vmsnap.host.accelerator import Accelerator
    from pytest_vmsnap.host.libvirt import Connection
    from pytest_vmsnap.host.permissions import Permissions
    from pytest_vmsnap.host.uri import UriChoice
    from pytest_vmsnap.model import Settings

CPUS = 2
# If QEMU 7.2 emulates several processors at once, one runs code that another has just patched. Linux patches
# itself ("jump labels") and dies with "Oops: int3". Measured: sysctl kernel.sched_schedstats kills it within a
# second; one boot in a few dozen dies; with one processor none does.
SEVERAL_CPUS_FLOOR = (8, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts about this host: shown in the header, and part of what a machine is made from."""

    uri: UriChoice
    accelerator: Accelerator
    emulator: Path
    machine_type: str
    libvirt_version: str
    qemu_version: str
    cpu_model: str = HOST
    warnings: tuple[str, ...] = ()

    @property
    def guest_cpu(self) -> str:
        """The processor that a guest sees."""
        return guest_cpu(self.accelerator, self.cpu_model)

    @property
    def cpus(self) -> int:
        """The number of processors of a machine whose spec does not set it."""
        return CPUS if self._emulates_several else 1

    @property
    def _emulates_several(self) -> bool:
        return self.accelerator.name == "kvm" or emulator.numbers(self.qemu_version) >= SEVERAL_CPUS_FLOOR

    def cpu_warning(self, cpus: int) -> str:
        """A warning about a machine with `cpus` processors; empty if there is none."""
        if cpus == 1 or self._emulates_several:
            return ""
        return (
            f"{cpus} CPUs: QEMU {self.qemu_version} sometimes crashes the guest's kernel (Oops: int3) when it "
            "emulates more than one; use 1 CPU, QEMU 8.1 or later, or KVM"
        )

    @property
    def kind(self) -> Literal["kvm", "qemu"]:
        """libvirt's domain type."""
        return "kvm" if self.accelerator.name == "kvm" else "qemu"


def facts_of(
    settings: Settings,
    choice: UriChoice,
    connection: Connection,
    *,
    cache: Path,
    user: tuple[int, int] | None,
    allowed: Permissions,
) -> Facts:
    """Return the facts about the host behind `connection`.

    `cache` keeps the result of the KVM probe; `user` is the (uid, gid) that QEMU runs as, None for the current
    user. Raises `NoHypervisor` if QEMU is missing or does not run, `HostError` if a version is too old,
    `AcceleratorError` if KVM is required and does not work.
    """
    found = connection.domain_capabilities(kind="qemu", machine=MACHINE_TYPE)
    program = emulator.emulator_of(found)
    emulator.installed(emulator.QEMU_IMG)
    qemu_version = emulator.version_of(program)
    emulator.expect_version("libvirt", connection.library_version, emulator.LIBVIRT_FLOOR)
    emulator.expect_version("QEMU", qemu_version, emulator.QEMU_FLOOR)
    return Facts(
        uri=choice,
        accelerator=accelerator.choose(settings.accel, emulator=program, cache=cache, as_user=user),
        emulator=program,
        machine_type=found.findtext("machine") or MACHINE_TYPE,
        libvirt_version=connection.library_version,
        qemu_version=qemu_version,
        cpu_model=_known_model(settings.cpu, connection),
        warnings=warnings(user, allowed),
    )


def _known_model(model: str, connection: Connection) -> str:
    """`model`, if it is one; raises `HostError` with what libvirt knows."""
    if model == HOST or model in LEVELS:
        return model
    known = connection.cpu_models()
    if model not in known:
        raise HostError(
            f"vmsnap_cpu={model!r} is not a processor that libvirt {connection.library_version} knows",
            hint=f"allowed: {HOST}, {', '.join((*LEVELS, *known))}",
        )
    return model


def warnings(user: tuple[int, int] | None, allowed: Permissions) -> tuple[str, ...]:
    """Warnings about a host that can run machines; `user` is the (uid, gid) that QEMU runs as."""
    kvm = Path("/dev/kvm")
    root_may = user and kvm.exists() and os.geteuid() == 0 and os.access(kvm, os.R_OK | os.W_OK)
    # Measured on libvirt 9.0: it compares its own access to the device with what QEMU's user saw.
    if user and root_may and not allowed.runs(["test", "-r", str(kvm), "-a", "-w", str(kvm)]):
        return (
            f"/dev/kvm opens for root but not for user {user[0]}, which libvirt runs QEMU as. So libvirt "
            "queries QEMU's capabilities again at each start, which takes a minute. Give that user access "
            "(sudo chmod 666 /dev/kvm), or use vmsnap_uri=qemu:///embed",
        )
    return ()
