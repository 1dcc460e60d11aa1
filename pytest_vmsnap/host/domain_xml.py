"""The libvirt domain of a machine, as an element tree (libvirt.org, "Domain XML format").

Few devices, each at a pinned PCI address: what a clone loads must fit the template's devices to the
letter, their order and addresses included.
"""

from __future__ import annotations

import json
import string
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from xml.etree.ElementTree import Element, SubElement, register_namespace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_vmsnap.model import Image, MachineSpec, Network

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
register_namespace("qemu", QEMU_NAMESPACE)

AGENT_PORT = "org.qemu.guest_agent.0"
MACHINE_TYPE = "pc"
MAIN_MEMORY = "ram0"  # of the memory backend, and so the name of its RAM block
# Each machine sits on a network of its own, so one address serves all; the guest keeps it in its memory.
MAC = "52:54:00:12:34:56"

SLOT_SCREEN, SLOT_SERIAL, SLOT_DISK, SLOT_RNG, SLOT_NETWORK, SLOT_FURTHER_DISKS = 2, 3, 4, 5, 6, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The file that is the guest's memory.

    `share` makes the guest write into the file (a template); without it the guest has a private,
    copy-on-write view. `sealed` has QEMU open the file for reading only (``readonly=on,rom=off``, QEMU ≥ 8.2).
    """

    path: Path
    share: bool
    sealed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """All that a domain's description is made from.

    `kind` is libvirt's domain type: ``kvm``, or ``qemu`` for software emulation. `disks` are the machine's own
    overlays, in the order of their device names. The serial console is recorded in `console`, and is reached
    at the socket `serial`. `agent` is the socket of the guest agent's port, `ports` are
    those of further virtio-serial ports by name. `incoming` waits for a saved device state. `unconfined` names
    the security models that are switched off for it, `qemu_user` is (uid, gid) where QEMU is not to run as
    the driver's default.
    """

    name: str
    kind: Literal["kvm", "qemu"]
    emulator: Path
    machine_type: str
    spec: MachineSpec
    image: Image
    disks: tuple[Path, ...]
    memory: Memory
    console: Path
    serial: Path
    agent: Path
    ports: Mapping[str, Path] = field(default_factory=dict)
    incoming: bool = False
    extra_arguments: tuple[str, ...] = ()
    qemu_user: tuple[int, int] | None = None
    unconfined: tuple[str, ...] = ()


def netdev_of(network: Network) -> str:
    """QEMU's name of the network backend: libvirt's own (``host`` and the device's alias), or ours."""
    return {"user": "hostnet0", "isolated": "vmsnap0", "none": ""}[network]


def describe(plan: Blueprint) -> Element:
    """The ``<domain>`` for `plan`, with a new UUID and a new generation id."""
    domain = Element("domain", type=plan.kind)
    _text(domain, "name", plan.name)
    _text(domain, "uuid", str(uuid.uuid4()))
    _text(domain, "genid", str(uuid.uuid4()))  # tells the guest's kernel that it is another: it reseeds
    _text(domain, "memory", str(plan.spec.memory), unit="MiB")
    _text(domain, "vcpu", str(plan.spec.cpus or 1))
    _boot(domain, plan)
    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    if plan.kind == "kvm":
        SubElement(domain, "cpu", mode="host-passthrough", check="none", migratable="on")
    else:
        SubElement(domain, "cpu", mode="maximum", check="none")
    clock = SubElement(domain, "clock", offset="utc")
    SubElement(clock, "timer", name="hpet", present="no")
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(domain, event, action)
    _devices(domain, plan)
    _security(domain, plan)
    _command_line(domain, plan)
    return domain


def snapshot_of_disks(overlays: Sequence[Path]) -> Element:
    """The ``<domainsnapshot>`` by which a domain's disks, in their order, go on with `overlays`."""
    snapshot = Element("domainsnapshot")
    disks = SubElement(snapshot, "disks")
    for index, path in enumerate(overlays):
        disk = SubElement(disks, "disk", name=_disk_name(index), snapshot="external")
        SubElement(disk, "driver", type="qcow2")
        SubElement(disk, "source", file=str(path))
    return snapshot


def _disk_name(index: int) -> str:
    return f"vd{string.ascii_lowercase[index]}"


def _text(parent: Element, tag: str, text: str, **attributes: str) -> Element:
    element = SubElement(parent, tag, attributes)
    element.text = text
    return element


def _boot(domain: Element, plan: Blueprint) -> None:
    system = SubElement(domain, "os")
    _text(system, "type", "hvm", arch="x86_64", machine=plan.machine_type)
    if plan.image.kernel:
        _text(system, "kernel", str(plan.image.kernel))
        if plan.image.initrd:
            _text(system, "initrd", str(plan.image.initrd))
        if plan.image.cmdline:
            _text(system, "cmdline", plan.image.cmdline)
    else:
        SubElement(system, "boot", dev="hd")
        if not plan.spec.screen:  # what firmware and boot loader say would be shown nowhere
            SubElement(system, "bios", useserial="yes")


def _devices(domain: Element, plan: Blueprint) -> None:
    devices = SubElement(domain, "devices")
    _text(devices, "emulator", str(plan.emulator))
    for index, path in enumerate(plan.disks):
        _disk(devices, index, path, plan)
    serial = SubElement(devices, "serial", type="unix")
    SubElement(serial, "source", mode="bind", path=str(plan.serial))
    SubElement(serial, "log", file=str(plan.console), append="on")
    SubElement(serial, "target", port="0")
    _address(SubElement(devices, "controller", type="virtio-serial", index="0"), SLOT_SERIAL)
    for number, (name, path) in enumerate({AGENT_PORT: plan.agent, **plan.ports}.items(), start=1):
        port = SubElement(devices, "channel", type="unix")
        # libvirt's own place for it is too deep in a home for a socket's 108 bytes (unix(7))
        SubElement(port, "source", mode="bind", path=str(path))
        SubElement(port, "target", type="virtio", name=name)
        SubElement(port, "address", type="virtio-serial", controller="0", bus="0", port=str(number))
    rng = SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
    _address(rng, SLOT_RNG)
    if plan.spec.network == "user":
        interface = SubElement(devices, "interface", type="user")
        SubElement(interface, "mac", address=MAC)
        SubElement(interface, "model", type="virtio")
        SubElement(interface, "rom", enabled="no")
        _address(interface, SLOT_NETWORK)
    if plan.spec.screen:
        video = SubElement(devices, "video")
        SubElement(video, "model", type="vga", vram="16384", heads="1")
        _address(video, SLOT_SCREEN)
    SubElement(devices, "controller", type="usb", model="none")
    # On a private mapping a balloon would punch holes into the file that all clones share.
    SubElement(devices, "memballoon", model="none")


def _disk(devices: Element, index: int, path: Path, plan: Blueprint) -> None:
    disk = SubElement(devices, "disk", type="file", device="disk")
    SubElement(disk, "driver", name="qemu", type="qcow2", cache="unsafe", discard="unmap")
    SubElement(disk, "source", file=str(path))
    SubElement(disk, "target", dev=_disk_name(index), bus="virtio")
    further = plan.spec.disks[index - 1] if 0 < index <= len(plan.spec.disks) else None
    if further and further.serial:
        _text(disk, "serial", further.serial)
    _address(disk, SLOT_FURTHER_DISKS + index - 1 if index else SLOT_DISK)


def _address(device: Element, slot: int) -> None:
    SubElement(
        device,
        "address",
        type="pci",
        domain="0x0000",
        bus="0x00",
        slot=f"{slot:#04x}",
        function="0x0",
    )


def _security(domain: Element, plan: Blueprint) -> None:
    if plan.qemu_user:
        uid, gid = plan.qemu_user
        # static without relabelling: libvirt changes the owner of no file, neither disk nor backing file
        label = SubElement(domain, "seclabel", type="static", model="dac", relabel="no")
        _text(label, "label", f"+{uid}:+{gid}")
    for model in plan.unconfined:
        SubElement(domain, "seclabel", type="none", model=model)


def _command_line(domain: Element, plan: Blueprint) -> None:
    command = SubElement(domain, f"{{{QEMU_NAMESPACE}}}commandline")

    def add(*arguments: str) -> None:
        for argument in arguments:
            SubElement(command, f"{{{QEMU_NAMESPACE}}}arg", value=argument)

    backend: dict[str, Any] = {
        "qom-type": "memory-backend-file",
        "id": MAIN_MEMORY,
        "size": plan.spec.memory << 20,
        "mem-path": str(plan.memory.path),
        "share": plan.memory.share,
    }
    if plan.memory.sealed:
        backend |= {"readonly": True, "rom": "off"}
    add("-object", json.dumps(backend), "-machine", f"memory-backend={MAIN_MEMORY}")
    if plan.spec.network == "isolated":  # libvirt's XML knows no `restrict`
        backend_name = netdev_of("isolated")
        add("-netdev", json.dumps({"type": "user", "id": backend_name, "restrict": True}))
        device = {
            "driver": "virtio-net-pci",
            "netdev": backend_name,
            "id": "net0",
            "mac": MAC,
            "romfile": "",
        }
        add("-device", json.dumps(device | {"bus": "pci.0", "addr": f"{SLOT_NETWORK:#x}"}))
    add(*plan.extra_arguments)
    if plan.incoming:
        add("-incoming", "defer")
