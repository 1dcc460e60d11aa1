from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pytest_vmsnap.host import DomainConfig, Memory, describe
from pytest_vmsnap.host.domain_xml import QEMU_NAMESPACE
from pytest_vmsnap.model import Disk, Image, MachineSpec

IMAGE = Image(
    key="k", origin="o", disk=Path("/d"), format="qcow2", kernel=Path("/k"), initrd=Path("/i"), cmdline="c"
)
PLAN = DomainConfig(
    name="n",
    kind="qemu",
    emulator=Path("/usr/bin/qemu"),
    machine_type="pc-i440fx-7.2",
    spec=MachineSpec(),
    image=IMAGE,
    disks=(Path("/run/disk,0.qcow2"),),
    memory=Memory(path=Path("/run/ram,0"), share=True),
    console=Path("/run/console"),
    serial=Path("/run/serial"),
    agent=Path("/run/agent"),
)


def arguments(config: DomainConfig) -> list[str]:
    return [arg.get("value") or "" for arg in describe(config).iter(f"{{{QEMU_NAMESPACE}}}arg")]


def backend(config: DomainConfig) -> dict[str, object]:
    found = arguments(config)
    loaded: dict[str, object] = json.loads(found[found.index("-object") + 1])
    return loaded


def test_memory_is_a_file_whose_path_may_have_a_comma() -> None:
    assert backend(PLAN) == {
        "qom-type": "memory-backend-file",
        "id": "ram0",
        "size": 512 << 20,
        "mem-path": "/run/ram,0",
        "share": True,
    }


def test_a_sealed_memory_file_is_opened_for_reading_only() -> None:
    sealed = backend(replace(PLAN, memory=Memory(path=Path("/r"), share=False, sealed=True)))
    assert (sealed["share"], sealed["readonly"], sealed["rom"]) == (False, True, "off")


def test_a_clone_differs_from_its_template_in_identity_alone() -> None:
    """Devices, order and addresses are the same to the letter, or the load is refused."""
    template, clone = describe(PLAN), describe(replace(PLAN, incoming=True))
    for tree in (template, clone):
        for tag in ("uuid", "genid"):
            element = tree.find(tag)
            assert element is not None
            tree.remove(element)
    last = clone[-1]
    assert [arg.get("value") for arg in last][-2:] == ["-incoming", "defer"]
    for arg in list(last)[-2:]:
        last.remove(arg)
    assert ElementTree.tostring(template) == ElementTree.tostring(clone)


def test_each_description_has_a_new_uuid_and_generation_id() -> None:
    one, two = describe(PLAN), describe(PLAN)
    for tag in ("uuid", "genid"):
        assert one.findtext(tag) != two.findtext(tag)


def test_every_pci_device_has_a_pinned_address_of_its_own() -> None:
    spec = MachineSpec(screen=True, disks=(Disk(size=1), Disk(size=1, serial="s")))
    tree = describe(replace(PLAN, spec=spec, disks=(Path("/0"), Path("/1"), Path("/2"))))
    slots = [a.get("slot") for a in tree.iter("address") if a.get("type") == "pci"]
    assert len(slots) == len(set(slots)) == 7


def test_a_screen_is_there_on_request_only() -> None:
    assert describe(PLAN).find("devices/video") is None
    screen = describe(replace(PLAN, spec=MachineSpec(screen=True)))
    assert screen.find("devices/video/model[@type='vga']") is not None


@pytest.mark.parametrize(
    ("network", "interfaces", "netdevs"), [("user", 1, 0), ("isolated", 0, 1), ("none", 0, 0)]
)
def test_the_network_is_as_asked(network: str, interfaces: int, netdevs: int) -> None:
    config = replace(PLAN, spec=MachineSpec(network=network))  # type: ignore[arg-type]
    assert len(describe(config).findall("devices/interface")) == interfaces
    assert arguments(config).count("-netdev") == netdevs
    assert ('"restrict": true' in " ".join(arguments(config))) == bool(netdevs)


def test_kvm_gives_the_hosts_cpu_and_emulation_the_maximum() -> None:
    assert describe(PLAN).find("cpu[@mode='maximum']") is not None
    kvm = describe(replace(PLAN, kind="kvm"))
    assert kvm.get("type") == "kvm"
    assert kvm.find("cpu[@mode='host-passthrough']") is not None


def test_no_file_changes_its_owner_where_qemu_is_another_user() -> None:
    tree = describe(replace(PLAN, qemu_user=(64055, 107), unconfined=("apparmor",)))
    label = tree.find("seclabel[@model='dac']")
    assert label is not None
    assert (label.get("relabel"), label.get("type")) == ("no", "static")
    assert label.findtext("label") == "+64055:+107"
    assert tree.find("seclabel[@model='apparmor'][@type='none']") is not None
    assert describe(PLAN).find("seclabel") is None


def test_an_image_without_a_kernel_boots_from_its_disk() -> None:
    tree = describe(replace(PLAN, image=replace(IMAGE, kernel=None, initrd=None, cmdline=None)))
    assert tree.find("os/kernel") is None
    assert tree.find("os/boot[@dev='hd']") is not None


def test_the_bios_speaks_on_the_serial_console_where_it_boots_and_there_is_no_screen() -> None:
    from_disk = replace(PLAN, image=replace(IMAGE, kernel=None, initrd=None, cmdline=None))
    serial = "os/bios[@useserial='yes']"
    assert describe(from_disk).find(serial) is not None
    assert describe(replace(from_disk, incoming=True)).find(serial) is not None
    assert describe(replace(from_disk, spec=MachineSpec(screen=True))).find(serial) is None
    assert describe(PLAN).find(serial) is None
