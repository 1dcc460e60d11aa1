"""The libvirt domain of a machine, as an element tree (libvirt.org, "Domain XML format").

There are few devices, each at a pinned PCI address: a clone loads the template's device state, so its devices
must match the template's exactly, including their order and addresses.
"""

from __future__ import annotations

import json
import string
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from xml.etree.ElementTree import Element, SubElement, register_namespace

from pytest_vmsnap.host.guest_cpu import HOST, cpu_element
from pytest_vmsnap.model import MODULES_LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_vmsnap.host.firmware import UefiFirmware
    from pytest_vmsnap.model import Firmware, Image, MachineSpec, Network

SERIAL_CHARDEV = "charserial0"  # libvirt's id of the first serial port
QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
register_namespace("qemu", QEMU_NAMESPACE)

AGENT_PORT = "org.qemu.guest_agent.0"
MACHINE_TYPE = "pc"
SECURE_MACHINE_TYPE = "q35"  # Secure Boot needs SMM, which the other one lacks
MAIN_MEMORY = "ram0"  # the memory backend's id, and so the name of its RAM block
# Each machine is on a network of its own, so all can share one address; the guest has it in its memory.
MAC = "52:54:00:12:34:56"

SLOT_SCREEN, SLOT_SERIAL, SLOT_DISK, SLOT_RNG, SLOT_NETWORK, SLOT_LAN, SLOT_FURTHER_DISKS = 2, 3, 4, 5, 6, 7, 8
LAN_BUS = "pci.1"  # libvirt's name for the root port of the LAN's card, on q35
LAN = "lan0"  # the network backend and the card on a cluster's private network


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The file that backs the guest's memory.

    With `share` the guest writes to the file (a template); without it the guest has a private, copy-on-write
    view. With `sealed` QEMU opens the file read-only (``readonly=on,rom=off``, QEMU ≥ 8.2).
    """

    path: Path
    share: bool
    sealed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Flash:
    """The two flash chips of a machine with UEFI: its firmware, and the qcow2 with its own variables."""

    firmware: UefiFirmware
    variables: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainConfig:
    """Everything that a domain's description is made from.

    `kind` is libvirt's domain type: ``kvm``, or ``qemu`` for software emulation. `disks` are the machine's own
    overlays, in the order of their device names; `flash` is None for a machine with BIOS. The file `console`
    records the serial console, whose socket is `serial`. `agent` is the socket of the guest agent's port,
    `tpm` that of its TPM, `ports` are those of other virtio-serial ports by name. With `incoming` QEMU waits
    for a saved device state. `unconfined` names the security models that are off for the domain; `qemu_user` is
    the (uid, gid) that QEMU runs as, if not the driver's default.
    """

    name: str
    kind: Literal["kvm", "qemu"]
    emulator: Path
    machine_type: str
    cpu_model: str = HOST
    spec: MachineSpec
    image: Image
    disks: tuple[Path, ...]
    flash: Flash | None = None
    memory: Memory
    console: Path
    serial: Path
    agent: Path
    tpm: Path | None = None
    ports: Mapping[str, Path] = field(default_factory=dict)
    incoming: bool = False
    extra_arguments: tuple[str, ...] = ()
    qemu_user: tuple[int, int] | None = None
    unconfined: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LanPort:
    """A machine's place on its cluster's private network: the switch's `socket`, and the card's `mac`."""

    socket: Path
    mac: str

    @property
    def netdev(self) -> dict[str, Any]:
        """The backend, in QMP's words (QEMU, "QMP reference": ``netdev_add``, type ``stream``, since 7.2)."""
        address = {"type": "unix", "path": str(self.socket)}
        return {"type": "stream", "id": LAN, "server": False, "addr": address}

    def device(self, firmware: Firmware) -> dict[str, Any]:
        """The card of a machine with `firmware`, in QMP's words (``device_add``)."""
        card = {"driver": "virtio-net-pci", "netdev": LAN, "id": LAN, "mac": self.mac, "romfile": ""}
        if firmware == "uefi-secure":  # the root bus of q35 takes no card while the machine runs
            return card | {"bus": LAN_BUS, "addr": "0x0"}
        return card | {"bus": _root_bus(firmware), "addr": f"{SLOT_LAN:#x}"}

    def arguments(self, firmware: Firmware) -> tuple[str, ...]:
        """Both, on QEMU's command line."""
        return "-netdev", json.dumps(self.netdev), "-device", json.dumps(self.device(firmware))


def _root_bus(firmware: Firmware) -> str:
    """QEMU's name for the bus that the devices are on."""
    return "pcie.0" if firmware == "uefi-secure" else "pci.0"


def netdev_of(network: Network) -> str:
    """QEMU's id of the network backend: libvirt's (``host`` plus the device's alias) or ours; empty if none."""
    return {"user": "hostnet0", "isolated": "vmsnap0", "none": ""}[network]


def describe(config: DomainConfig) -> Element:
    """Return the ``<domain>`` for `config`, with a new UUID and a new generation id."""
    domain = Element("domain", type=config.kind)
    _text(domain, "name", config.name)
    _text(domain, "uuid", str(uuid.uuid4()))
    _text(domain, "genid", str(uuid.uuid4()))  # the change makes a clone's kernel reseed (vmgenid)
    _text(domain, "memory", str(config.spec.memory), unit="MiB")
    _text(domain, "vcpu", str(config.spec.cpus or 1))
    _boot(domain, config)
    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    if config.image.firmware == "uefi-secure":
        SubElement(features, "smm", state="on")
    domain.append(cpu_element(config.kind, config.cpu_model))
    clock = SubElement(domain, "clock", offset="utc")
    SubElement(clock, "timer", name="hpet", present="no")
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(domain, event, action)
    _devices(domain, config)
    _security(domain, config)
    _command_line(domain, config)
    return domain


def snapshot_of_disks(overlays: Sequence[Path]) -> Element:
    """Return the ``<domainsnapshot>`` that switches a domain's disks, in their order, to `overlays`."""
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


def _boot(domain: Element, config: DomainConfig) -> None:
    system = SubElement(domain, "os")
    _text(system, "type", "hvm", arch="x86_64", machine=config.machine_type)
    if config.image.kernel:
        _text(system, "kernel", str(config.image.kernel))
        if config.image.initrd:
            _text(system, "initrd", str(config.image.initrd))
        if config.image.cmdline:
            _text(system, "cmdline", config.image.cmdline)
    else:
        SubElement(system, "boot", dev="hd")
        if not config.flash and not config.spec.screen:  # else the output of firmware and boot loader is lost
            SubElement(system, "bios", useserial="yes")


def _devices(domain: Element, config: DomainConfig) -> None:
    devices = SubElement(domain, "devices")
    _text(devices, "emulator", str(config.emulator))
    for index, path in enumerate(config.disks):
        _disk(devices, index, path, config)
    serial = SubElement(devices, "serial", type="unix")
    SubElement(serial, "source", mode="bind", path=str(config.serial))
    SubElement(serial, "target", port="0")
    _address(SubElement(devices, "controller", type="virtio-serial", index="0"), SLOT_SERIAL)
    for number, (name, path) in enumerate({AGENT_PORT: config.agent, **config.ports}.items(), start=1):
        port = SubElement(devices, "channel", type="unix")
        # libvirt's default path in a home directory may exceed a socket's 108 bytes (unix(7))
        SubElement(port, "source", mode="bind", path=str(path))
        SubElement(port, "target", type="virtio", name=name)
        SubElement(port, "address", type="virtio-serial", controller="0", bus="0", port=str(number))
    rng = SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
    _address(rng, SLOT_RNG)
    if config.spec.network == "user":
        interface = SubElement(devices, "interface", type="user")
        SubElement(interface, "mac", address=MAC)
        SubElement(interface, "model", type="virtio")
        SubElement(interface, "rom", enabled="no")
        _address(interface, SLOT_NETWORK)
    if config.image.firmware == "uefi-secure":
        port = SubElement(devices, "controller", type="pci", index="1", model="pcie-root-port")
        _address(port, SLOT_LAN)
    if config.spec.screen:
        video = SubElement(devices, "video")
        SubElement(video, "model", type="vga", vram="16384", heads="1")
        _address(video, SLOT_SCREEN)
    SubElement(devices, "controller", type="usb", model="none")
    # With a private mapping, a balloon punches holes into the file that all clones share.
    SubElement(devices, "memballoon", model="none")


def _disk(devices: Element, index: int, path: Path, config: DomainConfig) -> None:
    disk = SubElement(devices, "disk", type="file", device="disk")
    SubElement(disk, "driver", name="qemu", type="qcow2", cache="unsafe", discard="unmap")
    SubElement(disk, "source", file=str(path))
    SubElement(disk, "target", dev=_disk_name(index), bus="virtio")
    if serial := _serial_of(index, config):
        _text(disk, "serial", serial)
    _address(disk, SLOT_FURTHER_DISKS + index - 1 if index else SLOT_DISK)


def _flash(flash: Flash) -> list[str]:
    """QEMU's arguments for the flash chips: libvirt before 9.2 has no variables in a qcow2."""
    code = flash.firmware.code
    chips = {"pflash0": (code.path, code.format, True), "pflash1": (flash.variables, "qcow2", False)}
    arguments = []
    for chip, (path, kind, read_only) in chips.items():
        file = {"driver": "file", "filename": str(path)}
        options = {"driver": kind, "node-name": chip, "file": file, "read-only": read_only}
        arguments += ["-blockdev", json.dumps(options), "-machine", f"{chip}={chip}"]
    return arguments


def _tpm(path: Path) -> list[str]:
    """QEMU's arguments for a TPM whose swtpm listens on the socket `path`.

    libvirt would run swtpm_setup for each clone. ``tpm-crb`` and ``ppi`` have memory that cannot be saved.
    """
    device = {"driver": "tpm-tis", "tpmdev": "tpm0", "id": "tpm-tis0", "ppi": False}
    connection = f"socket,id=tpm-control,path={str(path).replace(',', ',,')}"
    return [
        "-chardev",
        connection,
        "-tpmdev",
        "emulator,id=tpm0,chardev=tpm-control",
        "-device",
        json.dumps(device),
    ]


def _serial_of(index: int, config: DomainConfig) -> str | None:
    """The serial number of the disk at `index`."""
    further = index - (config.image.disk is not None)
    if 0 <= further < len(config.spec.disks):
        return config.spec.disks[further].serial
    return MODULES_LABEL if config.image.modules and further == len(config.spec.disks) else None


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


def _security(domain: Element, config: DomainConfig) -> None:
    if config.qemu_user:
        uid, gid = config.qemu_user
        # static, relabel="no": libvirt changes no owner, neither of a disk nor of a backing file
        label = SubElement(domain, "seclabel", type="static", model="dac", relabel="no")
        _text(label, "label", f"+{uid}:+{gid}")
    for model in config.unconfined:
        SubElement(domain, "seclabel", type="none", model=model)


def _command_line(domain: Element, config: DomainConfig) -> None:
    command = SubElement(domain, f"{{{QEMU_NAMESPACE}}}commandline")

    def add(*arguments: str) -> None:
        for argument in arguments:
            SubElement(command, f"{{{QEMU_NAMESPACE}}}arg", value=argument)

    backend: dict[str, Any] = {
        "qom-type": "memory-backend-file",
        "id": MAIN_MEMORY,
        "size": config.spec.memory << 20,
        "mem-path": str(config.memory.path),
        "share": config.memory.share,
    }
    if config.memory.sealed:
        backend |= {"readonly": True, "rom": "off"}
    add("-object", json.dumps(backend), "-machine", f"memory-backend={MAIN_MEMORY}")
    if config.flash:
        add(*_flash(config.flash))
    if config.image.firmware == "uefi-secure":  # only the firmware may write the variables
        add("-global", "driver=cfi.pflash01,property=secure,value=on")
    if config.tpm:
        add(*_tpm(config.tpm))
    if config.spec.network == "isolated":  # libvirt's XML has no `restrict`
        backend_name = netdev_of("isolated")
        add("-netdev", json.dumps({"type": "user", "id": backend_name, "restrict": True}))
        device = {
            "driver": "virtio-net-pci",
            "netdev": backend_name,
            "id": "net0",
            "mac": MAC,
            "romfile": "",
        }
        bus = _root_bus(config.image.firmware)
        add("-device", json.dumps(device | {"bus": bus, "addr": f"{SLOT_NETWORK:#x}"}))
    # not libvirt's <log>: that is virtlogd's, which is late on a loaded host, and begins a new file after 2 MiB
    add("-set", f"chardev.{SERIAL_CHARDEV}.logfile={config.console}")
    add("-set", f"chardev.{SERIAL_CHARDEV}.logappend=on")
    add(*config.extra_arguments)
    if config.incoming:
        add("-incoming", "defer")
