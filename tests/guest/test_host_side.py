"""What the host sees of a machine."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from pytest_vmsnap import SpecError
from pytest_vmsnap.model import MachineSpec

if TYPE_CHECKING:
    from pytest_vmsnap import Machine
    from pytest_vmsnap.session import VmsnapSession


@pytest.mark.smoke
def test_the_uri_is_that_of_who_runs(vmsnap: VmsnapSession) -> None:
    wanted = os.environ.get("VMSNAP_URI") or ("qemu:///session" if os.geteuid() else "qemu:///embed")
    assert vmsnap.facts.uri.uri == wanted


def test_a_machine_has_few_devices(vm_module: Machine) -> None:
    devices = ElementTree.fromstring(vm_module.domain.XMLDesc()).find("devices")
    assert devices is not None
    kinds = {device.tag for device in devices}
    assert kinds <= {
        *("emulator", "disk", "controller", "interface", "serial", "console", "channel", "rng"),
        *("memballoon", "input", "audio", "watchdog"),
    }
    balloon = devices.find("memballoon")
    assert balloon is not None
    assert balloon.get("model") == "none"
    assert "VGA" not in vm_module.succeed("cat /sys/bus/pci/devices/*/class | sort | uniq")
    assert "0x030000" not in vm_module.succeed("cat /sys/bus/pci/devices/*/class")


def test_neither_image_nor_snapshot_is_written_to(vm: Machine) -> None:
    snapshot = vm._allocation.origin.snapshot  # type: ignore[union-attr]
    image = snapshot.image.disk
    assert image is not None

    def sums() -> list[str]:
        files = (image, *snapshot.disks, snapshot.devices, snapshot.memory.file().path)
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]

    before = sums()
    vm.succeed("head -c 50000000 /dev/urandom >/root/much; cp /root/much /dev/shm; sync")
    assert sums() == before
    snapshot.memory.file().expect_unchanged()


def test_clones_share_the_memory_file_of_their_snapshot(vm: Machine) -> None:
    snapshot = vm._allocation.origin.snapshot  # type: ignore[union-attr]
    pid = vm._backend.domain.pid()
    maps = Path(f"/proc/{pid}/maps").read_text()
    (mapping,) = [line for line in maps.splitlines() if line.endswith(str(snapshot.memory.file().path))]
    assert mapping.split()[1] == "rw-p"  # private: copy-on-write


def test_the_network_reaches_the_host(vm: Machine) -> None:
    assert "10.0.2.15" in vm.wait_until_succeeds("ip -4 -o addr show scope global | grep inet")


def test_a_spec_that_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match="memory='lots'"):
        MachineSpec(memory="lots")  # type: ignore[arg-type]


def test_a_users_machine_goes_when_its_test_ends(
    vmsnap: VmsnapSession, request: pytest.FixtureRequest, vm_spec: MachineSpec
) -> None:
    from pytest_vmsnap import MachineReleased
    from pytest_vmsnap.selection import Requirements

    with vmsnap.provide(request.node, vm_spec, Requirements()) as machine:
        directory = machine._backend.directory  # type: ignore[attr-defined]
        assert directory.is_dir()
    with pytest.raises(MachineReleased, match="test_a_users_machine_goes"):
        machine.run("true")
    machine_ended = machine._backend.domain.events.stopped
    vmsnap.begin(request.node)  # until another test begins it can be looked at, for a report
    assert machine_ended.wait(30)
