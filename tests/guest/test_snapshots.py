"""Snapshots within a test: disk, memory, processes and channel go back, and nothing outlives the test."""

from __future__ import annotations

import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from pytest_vmsnap import ChannelError, CommandFailed, MachineReleased, SpecError
from pytest_vmsnap.fork import live_save

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap import Machine
    from pytest_vmsnap.session import VmsnapSession

SERVER = "busybox httpd -f -p 8000 -h /srv >/dev/null 2>&1 &"


def processes(vm: Machine) -> int:
    return vm.succeed("pgrep -x sleep || true").count("\n")


@pytest.mark.smoke
def test_disk_memory_and_processes_go_back_to_the_snapshot_and_forward_again(vm: Machine) -> None:
    vm.succeed("echo one >/srv/on-disk; echo one >/dev/shm/in-memory; sleep 4321 >/dev/null 2>&1 &")  # unsynced
    before = processes(vm)
    vm.snapshot("one")
    vm.succeed("echo two >/srv/on-disk; echo two >/dev/shm/in-memory; sync; sleep 4322 >/dev/null 2>&1 &")
    vm.snapshot("two")
    for _ in range(2):
        vm.succeed("rm /srv/on-disk /dev/shm/in-memory; pkill -x sleep")
        vm.revert("one")
        assert vm.succeed("cat /srv/on-disk /dev/shm/in-memory") == "one\none\n"
        assert processes(vm) == before
        vm.revert("two")
        assert vm.succeed("cat /srv/on-disk /dev/shm/in-memory") == "two\ntwo\n"
        assert processes(vm) == before + 1
    vm.revert()
    vm.fail("cat /srv/on-disk")
    assert vm.read_text("/dev/shm/known-good") == "in memory\n"


def test_a_machine_goes_on_as_if_it_had_not_been_saved(vm: Machine) -> None:
    counting = vm.popen("i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
    vm.snapshot("here")
    vm.snapshot("here")  # takes the place of the first
    seen = len(counting.stdout)
    vm.wait_until(lambda: len(counting.stdout) > seen)
    assert counting.poll() is None
    lines = counting.stdout.split()
    assert lines == [b"%d" % number for number in range(1, len(lines) + 1)]


def test_a_process_of_before_a_revert_says_so(vm: Machine) -> None:
    process = vm.popen("sleep 1000")
    domain = vm.domain
    vm.snapshot("here")
    vm.revert("here")
    with pytest.raises(MachineReleased, match="reverted"):
        process.poll()
    assert vm.domain.UUIDString() != domain.UUIDString()
    vm.succeed(f"kill -0 {process.pid}")  # in the guest it is there


def test_random_numbers_differ_after_each_revert(vm: Machine) -> None:
    vm.snapshot("here")
    uuids = set()
    for _ in range(3):
        uuids.add(vm.succeed("cat /proc/sys/kernel/random/uuid"))
        vm.revert("here")
    assert len(uuids) == 3


def test_forwards_stand_again_on_the_same_ports(vm: Machine) -> None:
    vm.succeed(f"echo one >/srv/page; {SERVER}")
    vm.wait_for_open_port(8000)
    host, port = vm.forward_port(8000)

    def page() -> bytes:
        with urllib.request.urlopen(f"http://{host}:{port}/page", timeout=20) as answer:
            body: bytes = answer.read()
            return body

    assert page() == b"one\n"
    vm.snapshot("served")
    vm.succeed("echo two >/srv/page")
    assert page() == b"two\n"
    vm.revert("served")
    assert page() == b"one\n"
    assert vm.address == host
    with vm.rollback():
        vm.succeed("pkill httpd; pkill busybox; true")
        with pytest.raises((urllib.error.URLError, OSError)):
            page()
    assert page() == b"one\n"


@pytest.mark.smoke
def test_a_rollback_ends_where_it_began_whatever_happened_in_it(vm: Machine) -> None:
    vm.write_text("/srv/file", "kept\n")
    with pytest.raises(CommandFailed), vm.rollback():
        vm.succeed("rm -rf /srv /root; echo no >/dev/shm/known-good; false")
    assert vm.read_text("/srv/file") == "kept\n"
    with vm.rollback():
        vm.crash()
    assert vm.read_text("/srv/file") == "kept\n"
    with vm.rollback():
        vm.write_text("/srv/file", "outer\n")
        with vm.rollback():
            vm.write_text("/srv/file", "inner\n")
        assert vm.read_text("/srv/file") == "outer\n"
    assert vm.read_text("/srv/file") == "kept\n"


def test_a_rollback_on_error_keeps_what_went_well(vm: Machine) -> None:
    with vm.rollback(on="error"):
        vm.write_text("/srv/file", "kept\n")
    assert vm.read_text("/srv/file") == "kept\n"
    with pytest.raises(CommandFailed), vm.rollback(on="error"):
        vm.succeed("echo lost >/srv/file; false")
    assert vm.read_text("/srv/file") == "kept\n"


def test_a_rollback_where_nothing_was_done_since_the_last_one_saves_nothing(
    vm: Machine, vmsnap: VmsnapSession
) -> None:
    before, saved = snapshots(vmsnap), set()
    for number in range(3):
        with vm.rollback():
            vm.write_text("/srv/file", str(number))
            saved |= snapshots(vmsnap) - before
    assert not saved  # it was as its state each time
    vm.write_text("/srv/file", "begun\n")
    for number in range(3):
        with vm.rollback():
            assert vm.read_text("/srv/file") == "begun\n"
            vm.write_text("/srv/file", str(number))
            saved |= snapshots(vmsnap) - before
    assert len(saved) == 1


def snapshots(vmsnap: VmsnapSession) -> set[Path]:
    assert vmsnap._engine
    return set(vmsnap._engine.host.run.data.glob("*snapshot*"))


def test_nothing_of_a_snapshot_is_left_after_its_test(
    vm_factory: Callable[..., Machine], vmsnap: VmsnapSession, wait_for: Callable[..., None]
) -> None:
    wait_for(lambda: not snapshots(vmsnap), "the snapshots of tests before to be removed", 60)
    vm = vm_factory(name="one")
    vm.snapshot("here")
    assert len(snapshots(vmsnap)) == 1
    vm.revert("here")
    allocation = vm._allocation
    assert allocation
    allocation.end()
    wait_for(lambda: not snapshots(vmsnap), "the snapshot to be removed", 60)


@pytest.mark.thorough
def test_a_crash_and_a_new_boot_are_saved_like_anything_else(vm: Machine) -> None:
    vm.write_text("/srv/file", "synced\n")
    vm.succeed("sync")
    vm.crash()
    vm.start()
    vm.succeed("echo in memory >/dev/shm/anew")
    vm.snapshot("booted")
    vm.succeed("rm /srv/file /dev/shm/anew")
    vm.revert("booted")
    assert vm.succeed("cat /srv/file /dev/shm/anew") == "synced\nin memory\n"


def test_a_machine_that_was_saved_while_it_ran_can_reboot(vm: Machine) -> None:
    vm.succeed("echo kept >/srv/file; sync")
    for name in ("one", "two"):  # the second is saved of a clone of the first
        vm.snapshot(name)
        vm.revert(name)
    before = vm.succeed("cat /proc/sys/kernel/random/boot_id")
    vm.reboot()
    assert vm.succeed("cat /proc/sys/kernel/random/boot_id") != before
    assert vm.succeed("cat /srv/file") == "kept\n"


def test_wrong_use_is_told(vm: Machine) -> None:
    with pytest.raises(SpecError, match=r"no snapshot 'nowhere'.*it has: none"):
        vm.revert("nowhere")
    with pytest.raises(SpecError, match="the name must be a string"):
        vm.snapshot("")
    with pytest.raises(SpecError, match="allowed are always, error"), vm.rollback(on="never"):  # type: ignore[arg-type]
        pass


def test_a_snapshot_that_has_no_room_is_refused_and_the_machine_goes_on(
    vm: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_vmsnap import StoreFull
    from pytest_vmsnap.fork import clone

    monkeypatch.setattr(clone, "SPARE_MIB", 1 << 40)
    with pytest.raises(StoreFull, match="not enough space in"):
        vm.snapshot("here")
    vm.succeed("true")


def test_a_machine_in_which_a_command_runs_is_not_saved(vm: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    if vm._channel.name != "shell":
        pytest.skip("only the guest shell is part of what is saved")
    runs = threading.Thread(target=vm.run, args=("sleep 30",))
    runs.start()
    vm.wait_until_succeeds("pgrep -f 'sleep 30$'")
    monkeypatch.setattr(type(vm._deadlines), "seconds", lambda *_: 1.0)
    with pytest.raises(ChannelError, match="a command still runs"):
        vm.snapshot("here")
    monkeypatch.undo()
    vm.succeed("pkill -x sleep -n")
    runs.join()


@pytest.mark.smoke
@pytest.mark.vm(memory=3584)
@pytest.mark.parametrize("way", ["by us", "by QEMU"])
def test_memory_above_the_hole_is_saved_too(
    vm: Machine, vmsnap: VmsnapSession, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "by QEMU":  # as where Yama lets nobody read another process
        monkeypatch.setattr(live_save, "copy_ranges", Mock(side_effect=PermissionError))
    vm.succeed("head -c 100000000 /dev/urandom >/dev/shm/data; md5sum /dev/shm/data >/root/sum")
    before = snapshots(vmsnap)
    vm.snapshot("filled")
    (directory,) = snapshots(vmsnap) - before
    above = [path for path in (directory / "pages").iterdir() if int(path.name, 16) >= 3 << 30]
    assert sum(path.stat().st_size for path in above) > 50_000_000  # Linux takes memory above 4 GiB first
    vm.succeed("rm /dev/shm/data")
    vm.revert("filled")
    vm.succeed("md5sum -c /root/sum")


@pytest.mark.skipif(os.getuid() == 0, reason="root may look at every process")
def test_where_nobody_may_look_at_the_pages_all_memory_is_saved_and_this_is_said(
    project: pytest.Pytester, light: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    qemu = shutil.which("qemu-system-x86_64")
    assert qemu
    place = tmp_path_factory.mktemp("usr")  # QEMU looks for its modules and firmware beside its own directory
    for name in ("lib", "share"):
        (place / name).symlink_to(Path(qemu).parents[1] / name)
    (place / "bin").mkdir()
    hidden = str(shutil.copy(qemu, place / "bin"))
    Path(hidden).chmod(0o111)  # what runs and may not be read is hidden from its own user: ptrace(2)
    project.makeconftest(
        f"""
        def pytest_vmsnap_domain_xml(domain, spec):
            domain.find("devices/emulator").text = {hidden!r}
        """
    )
    project.makepyfile(
        """
        import pytest

        def test_it(vm):
            pid = vm._backend.domain.pid()
            with pytest.raises(PermissionError):
                open(f"/proc/{pid}/pagemap", "rb")
            vm.succeed("echo one >/dev/file; sleep 4321 >/dev/null 2>&1 &")
            for _ in range(2):
                vm.snapshot("here")
                vm.succeed("rm /dev/file; kill $(pidof sleep)")
                vm.revert("here")
                vm.succeed("cat /dev/file; pidof sleep")
        """
    )
    result = project.runpytest_subprocess(*light, "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    line = "vmsnap: saving all of a machine's memory, *(Permission denied)"
    result.stdout.fnmatch_lines([line])
    assert result.stdout.str().count("saving all of a machine's memory") == 1
