"""Machines of failed tests: kept as they are, and opened in another process."""

from __future__ import annotations

import os
import re
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from .. import plain

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from pytest_vmsnap import Machine

    from .terminal import Person

    AtTerminal = Callable[..., tuple[Person, subprocess.Popen[bytes]]]

CONFTEST = """
from pytest_vmsnap import state

@state
def deeper(vm):
    vm.succeed("echo of the state >/dev/deeper; echo of the state >/deeper; sync")
"""
TESTS = """
import threading

import pytest

def left_in(vm):
    vm.succeed("sleep 4242 >/dev/null 2>&1 &")
    vm.succeed("echo in memory >/dev/mine; echo not synced >/file")

@pytest.mark.vm_state("deeper")
def test_fails(vm):
    left_in(vm)
    with vm.rollback():
        vm.succeed("echo x >/undone")
    vm.snapshot("here")
    vm.succeed("echo x >/undone")
    vm.revert("here")
    vm.succeed("echo after >/after")
    assert vm.succeed("cat /undone; true"), "the reason"

def test_shared(vm_module):
    vm_module.succeed("echo of the shared one >/shared")
    assert 0

def test_shared_goes_on(vm_module):
    assert vm_module.read_text("/shared") == "of the shared one\\n"
    vm_module.crash()
    vm_module.start()

def test_busy(vm):
    threading.Thread(target=vm.run, args=("echo x >/runs; sleep 300",), daemon=True).start()
    vm.wait_for_file("/runs")
    pytest.fail("a command runs")

def test_off(vm):
    vm.crash()
    assert 0

def test_passes(vm): ...
"""
RUNS = "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -q 'sleep {seconds}' && echo runs"
LOOK = "cat /dev/mine /file /after /dev/deeper /deeper; ls /undone; " + RUNS.format(seconds="424[2]")
SEEN = "in memory\nnot synced\nafter\nof the state\nof the state\nruns\n"


@pytest.fixture
def failing(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, light: tuple[str, ...]
) -> pytest.Pytester:
    """A project whose tests fail."""
    options = (*light, "-pno:cacheprovider", *plain.OPTIONS)
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(f"'{option}'" for option in options))
    project.makeconftest(CONFTEST)
    project.makepyfile(test_it=TESTS)
    return project


@pytest.fixture
def kept(failing: pytest.Pytester, own_store: Path) -> pytest.Pytester:
    """`failing` over an empty store of its own."""
    return failing


def opened(project: pytest.Pytester, command: Path, name: str, *arguments: str) -> pytest.RunResult:
    return project.run(command, "open", name, *arguments)


@pytest.mark.smoke
def test_the_machine_of_a_failed_test_is_opened_as_it_was_as_often_as_is_wanted(
    kept: pytest.Pytester, command: Path
) -> None:
    result = kept.runpytest_subprocess("--vmsnap-keep=failed", "--junitxml=junit.xml")
    result.assert_outcomes(passed=2, failed=4)
    result.stdout.fnmatch_lines_random(
        [
            "*= vmsnap: kept machines =*",
            "vm of test_it.py::test_off is not kept: the machine is off",
            "vmsnap open test_it.py::test_shared",
            "vmsnap open test_it.py::test_busy",
            "vmsnap open test_it.py::test_fails",
        ]
    )
    assert 'value="vmsnap open test_it.py::test_fails"' in (kept.path / "junit.xml").read_text()
    assert kept.run(command, "prune", "--all").ret == 0  # it needs nothing of what it was made on
    for _ in range(2):
        result = opened(kept, command, "test_it.py::test_fails", "--exec", f"{LOOK}; echo other >/file; exit 3")
        assert (result.stdout.str(), result.ret) == (SEEN.rstrip(), 3)
    assert opened(kept, command, "test_shared", "--exec", "cat /shared").outlines == ["of the shared one"]
    runs = opened(kept, command, "test_busy", "--exec", RUNS.format(seconds="30[0]"))
    assert runs.outlines[0] == "runs"

    listed = kept.run(command, "kept").outlines
    assert [re.sub(r"^\w{8} +\d+ MiB +\d+ \w+ ago +", "", line) for line in listed] == [
        "test_it.py::test_shared (vm_module, from base): assert 0",
        "test_it.py::test_busy (vm, from base): Failed: a command runs",
        "test_it.py::test_fails (vm, from deeper): AssertionError: the reason",
    ]
    several = opened(kept, command, "test_it")
    assert several.ret == 1
    several.stderr.fnmatch_lines(
        ["vmsnap: 'test_it' matches several kept machines", "choose one *", "*test_busy*"]
    )
    unknown = opened(kept, command, "test_nothing")
    unknown.stderr.fnmatch_lines(["vmsnap: neither a kept machine nor a state is called 'test_nothing' *"])
    without = opened(kept, command, "test_busy")
    without.stderr.fnmatch_lines(["vmsnap: vmsnap open needs a terminal, *", "for one command: --exec CMD"])
    assert kept.run(command, "drop", "test_busy").outlines[0].startswith("removed test_it.py::test_busy (vm): ")
    assert len(kept.run(command, "kept").outlines) == 2
    kept.run(command, "drop", "--all")
    kept.run(command, "kept").stdout.fnmatch_lines(["no kept machines of this project in *"])


@pytest.mark.thorough
def test_no_more_are_kept_than_is_asked_for_whichever_worker_has_them(
    kept: pytest.Pytester, command: Path
) -> None:
    kept.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_fails(vm, number):
            vm.succeed(f"echo {number} >/number")
            assert 0
        """
    )
    kept.runpytest_subprocess("-n2", "--vmsnap-keep=3").assert_outcomes(failed=4)
    assert len(kept.run(command, "kept").outlines) == 3
    kept.runpytest_subprocess("--vmsnap-keep=1", "-k", "fails and 2").assert_outcomes(failed=1)
    assert len(kept.run(command, "kept").outlines) == 4
    result = kept.runpytest_subprocess("--vmsnap-keep=failed", "-k", "fails and 2", "--vmsnap-keep-limit=1")
    result.assert_outcomes(failed=1)
    (last,) = kept.run(command, "kept").outlines  # the others were over the limit
    assert "test_fails[2]" in last
    assert opened(kept, command, "test_fails[2]", "--exec", "cat /number").outlines == ["2"]
    result = kept.runpytest_subprocess("-k", "fails and 2")
    result.stdout.no_fnmatch_line("*kept machines*")


@pytest.mark.thorough
def test_a_person_tries_something_in_a_state_goes_back_and_keeps_what_they_have(
    failing: pytest.Pytester, command: Path, at_terminal: AtTerminal
) -> None:
    failing.runpytest_subprocess("-k", "test_fails").assert_outcomes(failed=1)  # the state is in the store
    person, process = at_terminal(str(command), "open", "deeper")
    person.wait(r"a shell in deeper@\w+: Ctrl-\]")
    person.type("echo tried >/tried; echo $((40+2))\n")
    person.wait(r"42\s")
    person.type("\x1d")
    person.wait(r"snapshot \[NAME\][\s\S]*vmsnap> ")
    person.type("snapshot one\n")
    person.wait(r"saved: `revert one` goes back to it")
    person.type("\n")
    person.type("rm /tried /deeper; echo $((50+3))\n")
    person.wait(r"53\s")
    person.type("\x1d")
    person.wait(r"vmsnap> ")
    person.type("revert one\n")
    person.wait(r"reverted to one")
    name = f"tried-{failing.path.name}"  # the store is others' too
    person.type(f"save --as {name}\n")
    person.wait(rf"kept: vmsnap open {name} \(\d+ MiB\)")
    person.type("revert\n")
    person.wait(r"reverted to deeper")
    person.type("\n")
    person.type("ls /tried; echo $((60+4))\n")
    person.wait(r"No such file or directory[\s\S]*64\s")
    person.type("exit\n")
    assert process.wait(60) == 0
    look = opened(failing, command, name, "--exec", "cat /tried /deeper /dev/deeper")
    assert look.outlines == ["tried", "of the state", "of the state"]
    failing.run(command, "drop", name)


def test_a_serial_console_is_opened(failing: pytest.Pytester, command: Path, at_terminal: AtTerminal) -> None:
    failing.runpytest_subprocess("-k", "test_passes").assert_outcomes(passed=1)
    person, process = at_terminal(str(command), "open", "base", "--console")
    person.wait(r"the serial console of base@\w+; Ctrl-\] leaves")
    person.type("\x1d")
    assert process.wait(60) == 0


@pytest.mark.skipif(not shutil.which("ssh"), reason="an SSH client is a person's own")
def test_an_ssh_client_gets_in(vm: Machine, command: Path, at_terminal: AtTerminal) -> None:
    assert vm._allocation
    key = vm._allocation.origin.snapshot.directory.name
    person, process = at_terminal(str(command), "open", f"base@{key}", "--ssh")
    person.wait(r"root@vm")
    person.type("echo $((40+2)); exit 7\n")
    person.wait(r"42\s")
    assert process.wait(60) == 7


def test_a_failed_test_s_machine_is_held_for_whoever_sits_at_the_terminal(
    failing: pytest.Pytester, at_terminal: AtTerminal
) -> None:
    refused = failing.runpytest_subprocess("--vmsnap-pause")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(
        ["*--vmsnap-pause needs a terminal, but standard input or standard output is not a terminal"]
    )
    refused = failing.runpytest_subprocess("--vmsnap-pause", "-n1")
    refused.stderr.fnmatch_lines(["*--vmsnap-pause needs a terminal, and pytest-xdist's workers have none*"])

    person, process = at_terminal(
        sys.executable, "-mpytest", "--vmsnap-pause", "-k", "test_busy or test_passes"
    )
    person.wait(r"test_it.py::test_busy failed; its machines keep running")
    person.wait(r"vm: vmsnap-\S+\s")
    person.wait(r"serial console: socat \S+ UNIX-CONNECT:(\S+)")
    person.wait(r"press Enter to continue, or type s and press Enter for a shell: ")
    person.type("s\n")
    person.wait(r"a shell in vmsnap-")
    person.type("cat /runs; echo $((40+2))\n")
    person.wait(r"x\s+42\s")
    person.type("exit\n")
    person.wait(r"for a shell: ")
    person.type("\n")
    person.wait(r"1 failed, 1 passed")
    assert process.wait(60) == 1


def test_a_debugger_has_the_machine_alive(failing: pytest.Pytester, at_terminal: AtTerminal) -> None:
    person, process = at_terminal(sys.executable, "-mpytest", "--pdb", "-k", "test_fails")
    person.wait(r"\(Pdb\) ")
    person.type("vm.succeed('cat /after; echo $((40+2))')\n")
    person.wait(r"'after\\n42\\n'")
    person.type("q\n")
    assert process.wait(60) != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="root makes small file systems")
def test_where_there_is_no_room_it_is_said_and_the_run_goes_on(
    kept: pytest.Pytester, request: pytest.FixtureRequest
) -> None:
    import subprocess
    from pathlib import Path

    store = Path(os.environ["VMSNAP_STORE"])
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600M", "none", store], check=True)
    request.addfinalizer(lambda: subprocess.run(["umount", "--lazy", store], check=True))
    kept.makepyfile(
        test_it="""
        import os

        def test_fails(vm):
            with open(os.environ["VMSNAP_STORE"] + "/ballast", "wb") as ballast:  # others fill the disk
                found = os.fstatvfs(ballast.fileno())
                os.posix_fallocate(ballast.fileno(), 0, found.f_bavail * found.f_bsize - 30_000_000)
            assert 0

        def test_passes(vm):
            os.unlink(os.environ["VMSNAP_STORE"] + "/ballast")
        """
    )
    result = kept.runpytest_subprocess("--vmsnap-keep=failed", "--vmsnap-standby=0")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["vm of test_it.py::test_fails is not kept: not enough space in * for a snapshot of *"]
    )
    assert not list((store / "kept").iterdir())
