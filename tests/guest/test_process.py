"""Commands that go on while the test does."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import CommandTimeout, MachineReleased

if TYPE_CHECKING:
    from pytest_vmsnap import Machine

pytestmark = pytest.mark.contract


def test_a_process_is_watched_to_its_end(vm_module: Machine) -> None:
    process = vm_module.popen("echo begins; read word; echo $word; echo oh >&2; exit 3", cwd="/tmp")
    assert process.poll() is None
    assert vm_module.succeed(f"readlink /proc/{process.pid}/cwd") == "/tmp\n"
    vm_module.wait_until(lambda: process.stdout == b"begins\n")
    process.write("hello\n")
    result = process.wait()
    assert (result.returncode, result.stdout, result.stderr) == (3, b"begins\nhello\n", b"oh\n")
    assert process.poll() == 3


def test_its_input_ends_where_it_is_closed(vm_module: Machine) -> None:
    process = vm_module.popen(["md5sum"])
    process.write(b"\0\xff")
    process.close_stdin()
    assert process.wait().text.split() == [hashlib.md5(b"\0\xff").hexdigest(), "-"]  # noqa: S324 - no secret


def test_a_signal_reaches_all_that_it_started(vm_module: Machine) -> None:
    process = vm_module.popen("sleep 31415 & sleep 31415; true")
    vm_module.wait_until_succeeds("[ $(pgrep -fc '^sleep 31415') = 2 ]")
    process.kill()
    assert process.wait().signal == 9
    vm_module.fail("pgrep -f '^sleep 31415'")


def test_a_program_may_be_interrupted(vm_module: Machine) -> None:
    process = vm_module.popen("trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.1; done")
    vm_module.wait_until(lambda: process.stdout == b"ready\n")
    process.kill("INT")
    result = process.wait()
    assert (result.returncode, result.stdout) == (7, b"ready\ncaught\n")


def test_waiting_ends_by_its_time_with_what_was_printed(vm_module: Machine) -> None:
    process = vm_module.popen("echo so far; sleep 1000")
    with pytest.raises(CommandTimeout, match="is still running") as caught:
        process.wait(timeout=0.5)
    assert (caught.value.result.stdout, caught.value.result.returncode) == (b"so far\n", -1)
    process.kill()


def test_another_user_may_run_it(vm_module: Machine) -> None:
    assert vm_module.popen("id -un", user="nobody").wait().stdout == b"nobody\n"


def test_a_process_is_gone_with_the_boot_that_it_ran_in(vm: Machine) -> None:
    process = vm.popen("sleep 1000")
    vm.succeed("rm -r /dev/shm/vmsnap.*")  # as a boot does
    with pytest.raises(MachineReleased, match="was rebooted after"):
        process.poll()
