"""The guest shell: framing that survives any bytes, commands that end, and guests that do not."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import CommandTimeout, GuestGone, GuestHung
from pytest_vmsnap.guest.shell.channel import PING_SECONDS, ShellChannel
from pytest_vmsnap.guest.shell.scripts import COMMAND_SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap import Machine

COMMANDS = int(os.environ.get("TEST_COMMANDS", "250"))


@pytest.fixture
def shell(vm_module: Machine) -> Machine:
    if vm_module._channel.name != "shell":
        pytest.skip("of the guest shell")
    return vm_module


def test_the_shells_own_words_in_the_output_change_nothing(shell: Machine) -> None:
    marks = "\n".join(f"#{number:016x} 0" for number in range(50))
    result = shell.run("cat; cat >&2 <<'END'\n#0123456789abcdef\nEND\nset", input=marks)
    assert result.text.startswith(marks)
    assert result.stderr == b"#0123456789abcdef\n"


@pytest.mark.parametrize("command", ["#", "# not a command", "<", "'", "<(", "!", "a\\", "$(", "\\"])
def test_what_the_shell_cannot_parse_harms_nobody(shell: Machine, command: str) -> None:
    shell.run(command)
    assert shell.succeed("echo well") == "well\n"


@pytest.mark.thorough
def test_hundreds_of_commands_are_exact(shell: Machine) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    shell.succeed("head -c 2000000 /dev/urandom >/dev/shm/bytes")
    content = shell.read_bytes("/dev/shm/bytes")
    assert len(content) == 2_000_000
    for _ in range(COMMANDS):
        size = int(10 ** chance.uniform(0, 6))
        block = 1 << chance.randrange(4, 17)
        start, count = chance.randrange(0, (2_000_000 - size) // block + 1), -(-size // block)
        status = chance.randrange(126)
        pages = f"dd if=/dev/shm/bytes bs={block} skip={start} count={count} 2>/dev/null"
        result = shell.run(f"{pages}; echo {size} >&2; exit {status}")
        expected = content[start * block : (start + count) * block]
        assert (result.stdout == expected, result.stderr, result.returncode) == (
            *(True, f"{size}\n".encode(), status),
        ), f"seed {seed}"


def test_a_command_may_open_its_own_streams(shell: Machine) -> None:
    result = shell.run("echo out >/dev/stdout; echo err >/dev/stderr; cat /dev/stdin", input="in\n")
    assert (result.stdout, result.stderr) == (b"out\nin\n", b"err\n")


def test_input_that_nobody_reads_disturbs_no_later_command(shell: Machine) -> None:
    data = os.urandom(3_000_000)
    assert shell.run("true", input=data).returncode == 0
    assert shell.run("head -c 3", input=data).stdout == data[:3]
    with pytest.raises(CommandTimeout):
        shell.run("sleep 1000", input=data, timeout=0.5)
    assert shell.run("cat", input=data).stdout == data


def test_what_a_background_process_prints_later_is_in_no_other_commands_output(
    shell: Machine, wait_for: Callable[..., None]
) -> None:
    assert shell.succeed("(sleep 2; echo late; echo it has printed >/dev/ttyS0) & echo now") == "now\n"
    wait_for(lambda: "it has printed" in shell.console_log, "what is printed while no command runs")
    for _ in range(8):
        assert shell.succeed("echo mine") == "mine\n"


def test_a_command_that_kills_its_own_shell_says_so_and_the_next_one_runs(shell: Machine) -> None:
    result = shell.run("kill -9 $$")
    assert (result.returncode, result.signal) == (137, 9)
    parent = "read -r line </proc/self/stat; set -- $line; kill -9 $4; sleep 1000"
    result = shell.run(parent, timeout=20)
    assert result.signal == 9
    assert b"was killed" in result.stderr
    with pytest.raises(CommandTimeout):  # the shell that is there now is known, and what it runs can be ended
        shell.run("sleep 1000.4", timeout=0.3)
    shell.fail("pgrep -f '^sleep 1000.4'")
    for _ in range(8):
        assert shell.succeed("echo well") == "well\n"


def test_more_threads_than_slots_all_get_their_own_answer(shell: Machine) -> None:
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        answers[number] = shell.succeed(f"sleep 0.1; echo {number}")

    threads = [threading.Thread(target=ask, args=[number]) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"{number}\n" for number in range(12)}


def test_an_interrupted_wait_leaves_a_channel_that_works(shell: Machine) -> None:
    main = threading.main_thread().ident
    assert main is not None
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            shell.run("sleep 1000.1")
    finally:
        signal.signal(signal.SIGALRM, before)
    for _ in range(5):
        assert shell.succeed("echo well") == "well\n"
    shell.fail("pgrep -f '^sleep 1000.1'")


def test_a_command_that_ran_over_before_it_began_is_ended_too(shell: Machine) -> None:
    channel, domain = shell._channel, shell._backend.domain
    assert isinstance(channel, ShellChannel)
    parents = ",".join(str(shell) for shell in channel._slots.shells()[:COMMAND_SLOTS])
    stopped = domain.agent("guest-exec", path="pkill", arg=["-STOP", "-P", parents], timeout=60)
    while not domain.agent("guest-exec-status", pid=stopped["pid"], timeout=60)["exited"]:
        pass
    for _ in range(COMMAND_SLOTS):
        with pytest.raises(CommandTimeout):
            shell.run("sleep 1000.2", timeout=0.2)
    shell.fail("pgrep -f '^sleep 1000.2'")


def test_a_command_that_is_ended_at_any_moment_leaves_a_channel_that_works(shell: Machine) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for number in range(20):
        with pytest.raises(CommandTimeout):
            shell.run("sleep 1000.3", timeout=chance.uniform(0, 0.05))
        assert shell.succeed(f"echo {number}") == f"{number}\n", f"seed {seed}"
    shell.fail("pgrep -f '^sleep 1000.3'")


def test_a_panic_ends_the_wait_at_once(vm: Machine) -> None:
    began = time.monotonic()
    with pytest.raises(GuestHung, match="kernel panicked"):
        vm.run("echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 1000", timeout=1000)
    assert time.monotonic() - began < 500


def test_a_stopped_qemu_is_told_from_a_slow_guest(vm: Machine) -> None:
    pid = vm._backend.domain.pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(GuestHung, match=f"process {pid}.*stopped by a signal"):
        vm.run("true", timeout=100)


def test_a_killed_qemu_is_told(vm: Machine) -> None:
    pid = vm._backend.domain.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(GuestGone, match="is off"):
        vm.run("true")


def test_the_next_test_has_a_clean_machine(vm: Machine) -> None:
    assert vm.succeed("echo well") == "well\n"


@pytest.mark.thorough
def test_a_shell_is_planted_where_the_image_has_none(vm: Machine) -> None:
    """By the agent: the image's own shell is taken away, and another is installed after the next boot."""
    vm.succeed("rm -r /usr/lib/vmsnap /etc/systemd/system/vmsnap-shell.service")
    vm.succeed("rm /etc/systemd/system/multi-user.target.wants/vmsnap-shell.service; sync")
    vm.crash()
    vm._channel._at_boot = False
    vm.start()
    assert vm.succeed("systemctl is-active vmsnap-shell") == "active\n"
    vm.reboot()
    assert vm.succeed("systemctl is-active vmsnap-shell") == "active\n"


def test_an_answer_given_long_ago_is_no_proof(shell: Machine) -> None:
    channel, domain = shell._channel, shell._backend.domain
    channel.ping()
    time.sleep(PING_SECONDS + 0.5)
    domain.suspend()
    with pytest.raises(GuestHung):
        channel.check(timeout=1)
    domain.resume()
    channel.check(timeout=30)
