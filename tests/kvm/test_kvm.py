"""The plugin under KVM, which is what users have; `tests/kvm/run` runs this where the host has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import state
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


def test_the_machine_after_a_fork_bomb_has_nothing_of_it(vm: Machine) -> None:
    vm.fail("test -e /srv/bomb")
    assert int(vm.succeed("ls -d /proc/[0-9]* | wc -l")) < 200


def test_a_reboot_keeps_the_disk_and_starts_a_new_kernel(vm: Machine) -> None:
    before = vm.read_text("/proc/sys/kernel/random/boot_id")
    vm.succeed("echo kept >/srv/kept")
    vm.reboot()
    assert vm.read_text("/srv/kept") == "kept\n"
    assert vm.read_text("/proc/sys/kernel/random/boot_id") != before
    assert vm.succeed("systemd-detect-virt").strip() == "kvm"


@state
def filled(vm: Machine) -> None:
    """A layer of memory, disk and a process."""
    vm.succeed("head -c 5000000 /dev/urandom >/dev/shm/data; md5sum /dev/shm/data >/srv/sum")
    vm.succeed("sleep 4343 >/dev/null 2>&1 &")


@state(parent="filled")
def filled_further(vm: Machine) -> None:
    """What was freed in the parent's memory, and came anew."""
    vm.succeed("rm /dev/shm/data; head -c 8000000 /dev/urandom >/dev/shm/more; md5sum /dev/shm/more >/srv/sum")


@pytest.mark.vm_state("filled")
def test_a_state_has_its_memory_disk_and_processes(vm: Machine) -> None:
    vm.succeed("md5sum -c /srv/sum; pgrep -x sleep")


@pytest.mark.vm_state("filled_further")
def test_a_state_on_a_state_has_its_own(vm: Machine) -> None:
    vm.fail("test -e /dev/shm/data")
    vm.succeed("md5sum -c /srv/sum; pgrep -x sleep")


def test_a_running_machine_is_saved_and_gone_back_to(vm: Machine) -> None:
    vm.succeed("head -c 5000000 /dev/urandom >/dev/shm/data; md5sum /dev/shm/data >/srv/sum")
    vm.succeed("sleep 4444 >/dev/null 2>&1 &")
    with vm.rollback():
        vm.succeed("rm /dev/shm/data /srv/sum; pkill -x sleep")
    vm.succeed("md5sum -c /srv/sum; pgrep -x sleep")
    vm.snapshot("here")
    vm.succeed("rm /dev/shm/data; head -c 8000000 /dev/urandom >/srv/data; sync")
    for _ in range(2):
        vm.revert("here")
        vm.succeed("md5sum -c /srv/sum; pgrep -x sleep; test ! -e /srv/data")
