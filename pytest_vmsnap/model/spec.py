"""The description of a machine."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pytest_vmsnap.errors import SpecError

Network = Literal["user", "isolated", "none"]
Firmware = Literal["bios", "uefi", "uefi-secure"]

MEMORY_MIB_FLOOR = 32
CPUS_CEILING = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """An additional disk: empty, of `size` MiB, or an overlay on the prepared image at `source`.

    It appears in the guest as ``/dev/vdb``, ``/dev/vdc`` and so on, with `serial` in ``/dev/disk/by-id/``.
    Raises `SpecError` unless exactly one of `size` and `source` is given, and if `size` is not a positive int.
    """

    size: int | None = None
    source: str | None = None
    serial: str | None = None

    def __post_init__(self) -> None:
        if (self.size is None) == (self.source is None):
            raise SpecError("a disk has either a size in MiB or a source", hint='e.g. {"size": 1024}')
        if self.size is not None and (not isinstance(self.size, int) or self.size < 1):
            raise SpecError(f"a disk's size must be a whole number of MiB (at least 1), not {self.size!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """The hardware and the image of a machine.

    `image`, `image_sha256`, `packages`, `kernel`, `initrd`, `cmdline` and `modules` are like the options of
    these names;
    `memory` is in MiB; `cpus` is the number of virtual processors, None for what the host can run well;
    `network` is ``user`` (outbound access through the host), ``isolated`` (port forwards only) or ``none``;
    `disks` are additional disks; `screen` adds a display; `firmware` None chooses BIOS or UEFI by the image;
    `tpm` adds a TPM 2.0.

    Raises `SpecError` if such a machine is not possible, or if QEMU could not save it.
    """

    image: str | None = "debian:trixie"
    image_sha256: str | None = None
    packages: tuple[str, ...] = ()
    kernel: str | None = None
    initrd: str | None = None
    cmdline: str | None = None
    modules: str | None = None
    memory: int = 512
    cpus: int | None = None
    network: Network = "user"
    disks: tuple[Disk, ...] = ()
    screen: bool = False
    firmware: Firmware | None = None
    tpm: bool = False

    def __post_init__(self) -> None:
        if self.image is None and self.kernel is None:
            raise SpecError("a machine without an image needs a kernel", hint="set vmsnap_kernel")
        for name in ("image", "image_sha256", "kernel", "initrd", "cmdline", "modules"):
            _expect(name, getattr(self, name), (str, type(None)), "a string")
        _expect_number("memory", self.memory, MEMORY_MIB_FLOOR, None, "MiB")
        if self.cpus is not None:
            _expect_number("cpus", self.cpus, 1, CPUS_CEILING, "processors")
        if self.network not in get_args(Network):
            raise SpecError(f"network={self.network!r}: must be one of {', '.join(get_args(Network))}")
        if self.firmware is not None and self.firmware not in get_args(Firmware):
            choices = ", ".join(get_args(Firmware))
            raise SpecError(
                f"firmware={self.firmware!r}: must be one of {choices}, or None to choose by the image"
            )
        _expect("screen", self.screen, (bool,), "True or False")
        _expect("tpm", self.tpm, (bool,), "True or False")
        object.__setattr__(self, "packages", _texts("packages", self.packages))
        object.__setattr__(self, "disks", tuple(_disk(disk) for disk in self.disks))

    def replace(self, **changes: Any) -> MachineSpec:
        """Return a copy with `changes`; raises `SpecError` for an unknown field or an invalid value."""
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise SpecError(f"a machine has no field {name!r}", hint=f"its fields are {', '.join(known)}")
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, equal for equal specs: part of a state's key."""
        return dataclasses.asdict(self)


def _expect(name: str, value: object, kinds: tuple[type, ...], words: str) -> None:
    if not isinstance(value, kinds):
        raise SpecError(f"{name}={value!r}: must be {words}")


def _expect_number(name: str, value: object, low: int, high: int | None, unit: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high and value > high):
        span = f"from {low} to {high}" if high else f"(at least {low})"
        raise SpecError(f"{name}={value!r}: must be a whole number of {unit} {span}")


def _texts(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise SpecError(f"{name}={value!r}: must be a list of strings")
    items = tuple(value)
    for item in items:
        _expect(name, item, (str,), "a list of strings")
    return items


# Devices whose state QEMU cannot save, or that write to what clones share.
_UNSAVEABLE = "9p, virtiofs, NVMe, virtio-gpu, vhost-user networks and virtio-mem cannot be saved by QEMU"


def _disk(value: object) -> Disk:
    if isinstance(value, Disk):
        return value
    if not isinstance(value, dict):
        raise SpecError(f"disks: {value!r} is not a disk", hint='e.g. disks=[{"size": 1024}]')
    known = [field.name for field in dataclasses.fields(Disk)]
    for name in value:
        if name not in known:
            raise SpecError(f"a disk has no field {name!r}; it has {', '.join(known)}", hint=_UNSAVEABLE)
    return Disk(**value)
