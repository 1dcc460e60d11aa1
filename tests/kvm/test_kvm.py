"""The plugin under KVM, which is what users have; `tests/kvm/run` runs this where the host has none."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import HostError

if TYPE_CHECKING:
    from pytest_vmsnap import Machine, MachineSpec
    from pytest_vmsnap.session import VmsnapSession

pytestmark = pytest.mark.hypervisor

UUID = "cat /proc/sys/kernel/random/uuid"
uuids: list[str] = []


@pytest.fixture(scope="session")
def vm_spec(vm_spec: MachineSpec, vmsnap: VmsnapSession) -> MachineSpec:
    """The machine, where KVM runs it; a skip elsewhere, unless KVM was asked for."""
    if vmsnap.settings.accel == "kvm":
        return vm_spec
    try:
        accelerator = vmsnap.facts.accelerator
    except HostError as error:
        pytest.skip(f"needs KVM: {error.message}")
    if accelerator.name != "kvm":
        pytest.skip(f"needs KVM: {accelerator.reason}")
    return vm_spec


@pytest.mark.vm_readonly
def test_the_host_says_that_kvm_runs_the_machines(vm: Machine, vmsnap: VmsnapSession) -> None:
    assert vmsnap.facts.accelerator.name == "kvm"
    assert any(" kvm (a probe guest passed)" in line for line in vmsnap.describe())


@pytest.mark.vm_readonly
def test_libvirt_runs_the_machine_under_kvm(vm: Machine) -> None:
    assert "<domain type='kvm'" in vm.domain.XMLDesc()


@pytest.mark.vm_readonly
def test_the_guest_sees_kvm(vm: Machine) -> None:
    assert vm.succeed("systemd-detect-virt").strip() == "kvm"


@pytest.mark.parametrize("turn", ["first", "second"])
def test_a_machine_has_nothing_of_the_one_before(vm: Machine, turn: str) -> None:
    vm.fail("test -e /srv/disk || test -e /dev/shm/memory || pgrep -x sleep")
    vm.succeed("echo disk >/srv/disk && sync; echo memory >/dev/shm/memory; sleep 4242 >/dev/null 2>&1 &")
    vm.wait_until_succeeds("test -e /srv/disk && test -e /dev/shm/memory && pgrep -x sleep")
    uuid = vm.succeed(UUID).strip()
    assert uuid not in uuids  # the clones' random numbers differ
    uuids.append(uuid)


def test_a_fork_bomb_stays_in_its_machine(vm: Machine) -> None:
    vm.succeed("sh -c ': >/srv/bomb; b() { b | b & }; b' >/dev/null 2>&1 &")


def test_the_machine_after_a_fork_bomb_is_clean_and_quick(vm: Machine) -> None:
    vm.fail("test -e /srv/bomb")
    started = time.monotonic()
    vm.succeed("true")
    assert time.monotonic() - started < 10
    assert int(vm.succeed("ls -d /proc/[0-9]* | wc -l")) < 200


def test_a_reboot_keeps_the_disk_and_starts_a_new_kernel(vm: Machine) -> None:
    before = vm.read_text("/proc/sys/kernel/random/boot_id")
    vm.succeed("echo kept >/srv/kept")
    vm.reboot(timeout=30)
    assert vm.read_text("/srv/kept") == "kept\n"
    assert vm.read_text("/proc/sys/kernel/random/boot_id") != before
    assert vm.succeed("systemd-detect-virt").strip() == "kvm"
