"""Commands in a real guest."""

from __future__ import annotations

import hashlib
import shlex
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import (
    CommandFailed,
    CommandSucceeded,
    CommandTimeout,
    GuestHung,
)
from pytest_vmsnap.guest.agent import channel as agent
from pytest_vmsnap.guest.shell import slots

if TYPE_CHECKING:
    from pytest_vmsnap import Machine

pytestmark = pytest.mark.contract

EVERY_BYTE = bytes(range(256)) * 4


@pytest.mark.smoke
def test_streams_and_status_come_apart(vm_module: Machine) -> None:
    result = vm_module.run("echo out; echo err >&2; exit 3")
    assert (result.returncode, result.signal) == (3, None)
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert result.duration > 0


def test_every_byte_comes_through_both_ways(vm_module: Machine) -> None:
    result = vm_module.run("tee /dev/stderr", input=EVERY_BYTE)
    assert result.stdout == EVERY_BYTE
    assert result.stderr == EVERY_BYTE


def test_no_newline_is_added_or_taken(vm_module: Machine) -> None:
    assert vm_module.succeed("printf x") == "x"
    assert vm_module.succeed("printf 'x\\n\\n'") == "x\n\n"


def test_invalid_utf8_is_replaced_in_text_only(vm_module: Machine) -> None:
    result = vm_module.run("printf '\\377'")
    assert result.stdout == b"\xff"
    assert result.text == "\N{REPLACEMENT CHARACTER}"


def test_fifty_megabytes_of_output_are_exact(vm: Machine) -> None:
    result = vm.run("head -c 50000000 /dev/urandom | tee /dev/shm/copy; md5sum </dev/shm/copy >&2", timeout=120)
    assert len(result.stdout) == 50_000_000
    assert hashlib.md5(result.stdout).hexdigest() == result.stderr.split()[0].decode()  # noqa: S324 - no secret


def test_a_sequence_is_quoted_for_the_shell(vm_module: Machine) -> None:
    odd = 'it\'s $HOME; `true` "quoted" * \\'
    assert vm_module.run(["printf", "%s", odd]).text == odd


def test_working_directory_environment_and_user_are_as_asked(vm_module: Machine) -> None:
    odd = "a b'c\n$d"
    result = vm_module.run('pwd; printf "%s" "$ODD"; id -un', cwd="/usr/lib", env={"ODD": odd}, user="nobody")
    assert result.text == f"/usr/lib\n{odd}nobody\n"


def test_a_command_begins_in_the_root_as_root_with_a_path(vm_module: Machine) -> None:
    assert vm_module.succeed("pwd; umask; id -un; echo $HOME; command -v sysctl").split() == [
        "/",
        "0022",
        "root",
        "/root",
        vm_module.succeed("command -v sysctl").strip(),
    ]


@pytest.mark.parametrize(("sent", "number"), [("KILL", 9), ("TERM", 15)])
def test_a_death_by_signal_is_told(vm_module: Machine, sent: str, number: int) -> None:
    result = vm_module.run(f"sh -c 'kill -{sent} $$'")
    assert (result.returncode, result.signal) == (128 + number, number)


def test_the_shell_itself_may_be_killed(vm_module: Machine) -> None:
    assert vm_module.run("kill -KILL $$").signal == 9
    assert vm_module.succeed("echo on") == "on\n"


def test_a_failure_carries_both_streams(vm_module: Machine) -> None:
    with pytest.raises(CommandFailed, match=r"failed with status 7") as caught:
        vm_module.succeed("echo fine", "echo said; echo why >&2; exit 7")
    assert "said" in str(caught.value)
    assert "why" in str(caught.value)
    assert caught.value.result.returncode == 7
    assert isinstance(caught.value, AssertionError)


def test_a_success_where_failure_was_wanted_is_told(vm_module: Machine) -> None:
    assert vm_module.fail("echo no; false") == "no\n"
    with pytest.raises(CommandSucceeded, match="should have failed"):
        vm_module.fail("true")


def test_a_command_over_its_time_is_killed_with_all_it_started(vm: Machine) -> None:
    with pytest.raises(CommandTimeout) as caught:
        vm.run("echo begun; sleep 3333 & (sleep 3334; echo never) ; echo never", timeout=2)
    assert caught.value.result.stdout == b"begun\n"
    assert isinstance(caught.value, TimeoutError)
    assert vm.run("pgrep -f 'sleep 333[34]'").text == ""


def test_a_background_process_that_keeps_the_streams_does_not_hold_the_caller(vm: Machine) -> None:
    result = vm.run("echo here; sleep 3333 &", timeout=20)
    assert result.text == "here\n"
    vm.succeed("pgrep -f 'sleep 3333'")


def test_several_threads_run_commands_at_once(vm_module: Machine) -> None:
    """Each ends when all have begun."""
    all_here = 'mkdir -p /run/met; : >/run/met/{0}; until [ "$(ls /run/met | wc -l)" = 4 ]; do sleep 0.1; done'
    with ThreadPoolExecutor(4) as threads:
        commands = [f"{all_here.format(number)}; echo {number}" for number in range(4)]
        assert list(threads.map(vm_module.succeed, commands)) == [f"{number}\n" for number in range(4)]


def test_large_input_is_exact(vm_module: Machine) -> None:
    data = EVERY_BYTE * 3000
    assert vm_module.run("md5sum", input=data).text.split()[0] == hashlib.md5(data).hexdigest()  # noqa: S324


def test_a_guest_that_does_not_answer_has_an_error_of_its_own(
    vm: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "ANSWER_SECONDS", 3.0)
    monkeypatch.setattr(slots, "KILL_SECONDS", 3.0)
    vm.run("echo last words >/dev/console")
    servants = {"shell": "pgrep -f vmsnap/shell", "agent": "pgrep -x qemu-ga", "ssh": "pgrep sshd"}
    with pytest.raises(GuestHung, match="did not answer") as caught:
        vm.run(f"kill -STOP $({servants[vm._channel.name]})", timeout=2)
    assert "last words" in str(caught.value)


def test_a_paused_machine_is_told_from_a_slow_one(vm: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "ANSWER_SECONDS", 3.0)
    vm.pause()
    with pytest.raises(GuestHung, match="is paused"):
        vm.run("true")
    vm.resume()
    assert vm.succeed("echo again") == "again\n"


def test_a_script_of_many_lines_runs_as_one(vm_module: Machine) -> None:
    script = "n=0\nfor i in 1 2 3; do\n  n=$((n + i))\ndone\ncat <<END\nsum $n\nEND\n"
    assert vm_module.succeed(script) == "sum 6\n"
    assert vm_module.succeed(f"sh -c {shlex.quote(script)}") == "sum 6\n"


def test_a_very_long_script_runs(vm_module: Machine) -> None:
    script = "".join(f": {number:0100d}\n" for number in range(3000)) + "echo end"
    assert len(script) > 200_000
    assert vm_module.succeed(script) == "end\n"
