"""Whole pytest runs of a project with machines, each a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.host.run_directory import libvirt_logs

from .images import CMDLINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vmsnap import Machine
    from pytest_vmsnap.session import VmsnapSession

PATIENCE = 180.0  # seconds until a run has booted its machine, however loaded the host is


def begin(runner: list[str], directory: Path, *arguments: str) -> subprocess.Popen[str]:
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # as in a shell's background: the child would ignore it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [*runner, "-p", "no:cacheprovider", *arguments]
    return subprocess.Popen(
        command,
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def logs_of(run_id: str) -> list[Path]:
    """What libvirt's daemons keep of the QEMUs of a run."""
    return [path for place in libvirt_logs().values() for path in place.glob(f"vmsnap-{run_id}-*")]


def run_ids(store: Path) -> set[str]:
    return {path.parent.name for path in (store / "runs").glob("*/run.json")}


@pytest.fixture
def store(vmsnap: VmsnapSession) -> Path:
    return vmsnap.store.path


@pytest.fixture
def interrupted(
    wait_for: Callable[..., None],
    project: pytest.Pytester,
    runner: list[str],
    light: tuple[str, ...],
    store: Path,
) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """A run that stands in the midst of a test with a machine: process, id, its directory of sockets."""
    project.makepyfile(
        """
        import pathlib, time

        def test_stands_still(vm):
            vm.succeed("sleep 1000 >/dev/null 2>&1 &")
            pathlib.Path("ready").touch()
            time.sleep(1000)
        """
    )
    process = begin(runner, project.path, *light)
    try:
        wait_for(lambda: (project.path / "ready").exists() or process.poll() is not None, "a machine")
        assert process.poll() is None, process.communicate()[0]
        records = {
            name: json.loads((store / "runs" / name / "run.json").read_text()) for name in run_ids(store)
        }
        ((run_id, record),) = [found for found in records.items() if found[1]["pid"] == process.pid]
        yield process, run_id, Path(record["sockets"])
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.smoke
def test_a_killed_run_leaves_no_qemu_and_the_next_start_leaves_no_file(
    wait_for: Callable[..., None],
    interrupted: tuple[subprocess.Popen[str], str, Path],
    project: pytest.Pytester,
    runner: list[str],
    store: Path,
    qemus: Callable[[str], list[int]],
) -> None:
    process, run_id, sockets = interrupted
    assert qemus(f"vmsnap-{run_id}-")
    process.kill()
    wait_for(lambda: not qemus(f"vmsnap-{run_id}-"), "the end of its QEMUs", 5.0)
    project.makepyfile(
        test_next="""
        import pytest

        @pytest.mark.skip(reason="a run that looks at the host, and boots nothing")
        def test_next(vm): ...
        """
    )
    wait_for(lambda: process.poll() is not None, "the end of the process", 10.0)
    following = begin(runner, project.path, "test_next.py")
    output, _ = following.communicate(timeout=PATIENCE)
    assert "1 skipped" in output
    assert run_id not in run_ids(store)
    assert not (store / "runs" / f"{run_id}.lock").exists()
    assert not sockets.exists()
    assert not logs_of(run_id)


def test_ctrl_c_ends_the_run_with_nothing_left(
    interrupted: tuple[subprocess.Popen[str], str, Path], store: Path, qemus: Callable[[str], list[int]]
) -> None:
    process, run_id, sockets = interrupted
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in output
    assert "Traceback (most recent call last)" not in output.split("KeyboardInterrupt")[-1]
    assert not qemus(f"vmsnap-{run_id}-")
    assert run_id not in run_ids(store)
    assert not sockets.exists()
    assert not logs_of(run_id)


def test_a_failing_test_shows_its_console_and_no_other(
    project: pytest.Pytester, light: tuple[str, ...]
) -> None:
    project.makepyfile(
        """
        def test_one(vm):
            vm.succeed("echo words of one >/dev/console")

        def test_two(vm):
            vm.succeed("echo words of two >/dev/console")
            vm.wait_for_console_text("words of two")
            vm.succeed("echo and more >&2; false")

        def test_shared_before(vm_module):
            vm_module.succeed("echo words of before >/dev/console")
            vm_module.wait_for_console_text("words of before")

        def test_shared(vm_module):
            vm_module.succeed("echo words of shared >/dev/console")
            vm_module.wait_for_console_text("words of shared")
            assert vm_module.succeed("echo spoken") == ""
        """
    )
    result = project.runpytest_subprocess(*light, "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        ["*Console of vmsnap-*", "*words of two", "*Console of vmsnap-*", "*words of shared"]
    )
    result.stdout.no_fnmatch_line("*words of one")
    result.stdout.no_fnmatch_line("*words of before")
    result.stdout.no_fnmatch_line("*pytest_vmsnap/guest*")


POLICY_TESTS = """
    import pytest

    SEEN = "/root/seen"

    def visit(vm):
        found = vm.run(f"cat {SEEN} 2>/dev/null").text
        vm.succeed(f"echo -n x >>{SEEN}")
        return len(found)

    def test_a_first(vm):
        assert visit(vm) == 0

    def test_b_second(vm, second):
        assert visit(vm) == second

    @pytest.mark.vm_fresh
    def test_c_fresh(vm):
        assert visit(vm) == 0

    def test_d_fails(vm, after_fresh):
        assert visit(vm) == after_fresh
        pytest.fail("on purpose")

    def test_e_after_failure(vm, after_failure):
        assert visit(vm) == after_failure
"""


@pytest.mark.parametrize(
    ("policy", "second", "after_fresh", "after_failure"),
    [("marked", 1, 1, 2), ("on-failure", 1, 1, 0)],
)
def test_the_policy_decides_who_gets_a_used_machine(
    project: pytest.Pytester,
    light: tuple[str, ...],
    policy: str,
    second: int,
    after_fresh: int,
    after_failure: int,
) -> None:
    project.makeconftest(
        f"""
        import pytest
        second = pytest.fixture(name="second")(lambda: {second})
        after_fresh = pytest.fixture(name="after_fresh")(lambda: {after_fresh})
        after_failure = pytest.fixture(name="after_failure")(lambda: {after_failure})
        """
    )
    project.makepyfile(POLICY_TESTS)
    result = project.runpytest_subprocess(*light, f"--vmsnap-revert={policy}", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["*Failed: on purpose"])


def test_preparations_run_the_outermost_first_and_a_domain_may_be_changed(
    project: pytest.Pytester, light: tuple[str, ...]
) -> None:
    project.makeconftest(
        """
        from xml.etree.ElementTree import SubElement

        def pytest_vmsnap_prepare(vm, spec):
            vm.succeed("echo outer >>/root/order")

        def pytest_vmsnap_domain_xml(domain, spec):
            SubElement(domain, "title").text = f"of {spec.memory} MiB"
        """
    )
    inner = project.mkdir("tests")
    (inner / "conftest.py").write_text(
        "def pytest_vmsnap_prepare(vm):\n    vm.succeed('echo inner >>/root/order')\n"
    )
    (inner / "test_order.py").write_text(
        "import pytest\n"
        "def test_order(vm):\n"
        "    assert vm.read_text('/root/order') == 'outer\\ninner\\n'\n"
        "    assert '<title>of 160 MiB</title>' in vm.domain.XMLDesc()\n"
        "@pytest.mark.vm_readonly\n"
        "def test_reads(vm):\n"
        "    vm.succeed('echo x >>/root/mark')\n"
        "@pytest.mark.vm_readonly\n"
        "def test_reads_the_same_machine(vm):\n"
        "    assert vm.read_text('/root/mark') == 'x\\n'\n"
        "def test_not_with_those_who_only_read(vm):\n"
        "    vm.fail('test -e /root/mark')\n"
    )
    project.runpytest_subprocess(*light, "-p", "no:cacheprovider").assert_outcomes(passed=4)


WITHOUT_GENID = """
def pytest_vmsnap_domain_xml(domain, spec):
    domain.remove(domain.find("genid"))
"""
DRAWN = """
import pytest

from pytest_vmsnap.host.run_directory import libvirt_logs

drawn = []

@pytest.mark.parametrize("number", range(4))
def test_draws(vm, number):
    drawn.append(vm.read_text("/proc/sys/kernel/random/uuid"))
    drawn.append(vm.succeed("head -c 16 /dev/urandom | od -An -tx1"))
    assert len(set(drawn)) == len(drawn)
"""


def test_a_guest_that_cannot_learn_that_it_is_a_clone_is_given_other_random_numbers(
    project: pytest.Pytester,
) -> None:
    project.makeconftest(WITHOUT_GENID)
    project.makepyfile(DRAWN)
    project.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=4)


# ioctl(open("/dev/urandom", 0), RNDRESEEDCRNG, 0) as a program of x86-64, for a guest without perl. It has
# just reseeded when its state is saved, and does not by itself in the seconds after (drivers/char/random.c).
RESEEDS = (
    bytes.fromhex("b802000000488d3d1d00000031f60f0589c7b810000000be0752000031d20f0589c7b83c0000000f05")
    + b"/dev/urandom\0"
)
PREPARED = f"""
def pytest_vmsnap_prepare(vm):
    code = {RESEEDS!r}
    magic = b"\\x7fELF\\2\\1\\1"
    header = struct.pack("<16sHHIQQQIHHHHHH", magic, 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 120 + len(code), 120 + len(code), 4096)
    vm.write_bytes("/reseeds", header + segment + code)
    vm.succeed("chmod +x /reseeds && /reseeds")
"""


@pytest.mark.thorough
def test_a_guest_whose_random_numbers_would_repeat_is_refused_unless_that_is_accepted(
    project: pytest.Pytester, light: tuple[str, ...]
) -> None:
    project.makeconftest(f"import struct\n{WITHOUT_GENID}{PREPARED}")
    project.makepyfile(DRAWN)
    result = project.runpytest_subprocess(*light, "-p", "no:cacheprovider")
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(["*would all draw the same random numbers*", "*vmsnap_entropy=warn*"])
    options = ("--vmsnap-entropy=warn", "--vmsnap-standby=0", "--vmsnap-refresh", "-p", "no:cacheprovider")
    repeats = 0
    for _ in range(5):  # it reseeds by itself some seconds later, which on a busy host is before the first draw
        result = project.runpytest_subprocess(*light, *options)
        result.stdout.fnmatch_lines(["*warning: *would all draw the same random numbers*"])
        outcomes = result.parseoutcomes()
        assert outcomes.get("failed", 0) + outcomes.get("passed", 0) == 4
        if repeats := outcomes.get("failed", 0):
            break
    assert repeats  # as is to be feared


def test_each_machine_is_proved_clean_where_that_is_asked_for(
    project: pytest.Pytester, light: tuple[str, ...]
) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(3))
        def test_it_has_its_own_nonce_and_no_other(vm, number):
            nonces = vm.succeed("cd /root && cat /run/.vmsnap-nonce .vmsnap-nonce").split()
            assert len(set(nonces)) == 1
            assert nonces[0].startswith(vm.name + ":")
        """
    )
    result = project.runpytest_subprocess(*light, "--vmsnap-verify=nonce", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=3)


def test_a_failing_preparation_is_told_once_with_the_projects_own_line(
    project: pytest.Pytester, light: tuple[str, ...]
) -> None:
    project.makeconftest(
        """
        def pytest_vmsnap_prepare(vm):
            vm.succeed("echo reason >&2; exit 9")  # the project's own line
        """
    )
    project.makepyfile("def test_one(vm): ...\ndef test_two(vm): ...\ndef test_without(): ...")
    result = project.runpytest_subprocess(*light, "-p", "no:cacheprovider")
    result.assert_outcomes(errors=2, passed=1)
    result.stdout.fnmatch_lines(["*# the project's own line", "*reason*"])
    result.stdout.fnmatch_lines(["*preparation of the state base failed*see test_*::test_one*"])
    assert str(result.stdout).count("# the project's own line") == 1


def test_a_guest_that_does_not_boot_shows_its_console(
    project: pytest.Pytester, vmsnap: VmsnapSession, vm_module: Machine
) -> None:
    kernel = vm_module._allocation.origin.snapshot.image.kernel  # type: ignore[union-attr]
    project.makepyfile("def test_one(vm): ...")
    result = project.runpytest_subprocess(
        *("--vmsnap-image=none", f"--vmsnap-kernel={kernel}"),
        *(f"--vmsnap-cmdline={CMDLINE}", "-p", "no:cacheprovider", "--vmsnap-timeout-factor=0.25"),
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*the guest's kernel panicked*", "*last lines of the console:*", "*Kernel panic*"]
    )


def test_a_host_that_cannot_is_told_in_full_by_the_first_test_and_in_a_line_by_the_next(
    project: pytest.Pytester, vmsnap: VmsnapSession
) -> None:
    if vmsnap.facts.accelerator.name == "kvm":
        pytest.skip("KVM works here: there is nothing to be told")
    project.makepyfile("def test_one(vm): ...\ndef test_two(vm): ...")
    result = project.runpytest_subprocess("--vmsnap-accel=kvm", "-p", "no:cacheprovider")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["vmsnap: no machine can run here: KVM was requested*"])
    result.stdout.fnmatch_lines(
        ["KVM was requested*", "*--vmsnap-accel=auto*", "KVM was requested*(see *::test_one)"]
    )


TWO_SESSIONS = """\
import pytest
for number in range(2):
    pytest.main(["-q", "--tb=short", "-p", "no:cacheprovider"])
"""


@pytest.mark.smoke
@pytest.mark.skipif(os.geteuid() != 0, reason="libvirt's driver runs in a process of root only")
def test_a_second_session_in_a_process_is_told_why_libvirts_driver_refuses_it(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMSNAP_URI", "qemu:///embed")
    project.makepyfile("def test_it(vmsnap): assert vmsnap.facts")
    result = project.runpython_c(TWO_SESSIONS)
    result.stdout.fnmatch_lines(
        ["1 passed*", "*already open with path*", "*runpytest_subprocess*qemu:///session*", "1 failed*"]
    )


def test_a_machine_whose_making_hangs_does_not_hold_the_end_of_the_run(
    project: pytest.Pytester,
    runner: list[str],
    light: tuple[str, ...],
    qemus: Callable[[str], list[int]],
) -> None:
    project.makepyfile(
        """
        import os, signal, time
        from pytest_vmsnap.host import processes

        def test_whose_successor_never_comes(vm, vmsnap):
            prefix = vmsnap._engine.host.run.prefix
            print(f"run {prefix}")
            deadline = time.monotonic() + 150
            seen = vm._backend.domain.pid()
            while time.monotonic() < deadline:  # as soon as it is there, and long before it is loaded
                for pid, name in processes.qemus():
                    if name.startswith(prefix) and pid != seen:
                        os.kill(pid, signal.SIGSTOP)
                        assert 0, "stopped"

        def test_that_is_made_ahead_for(vm): ...
        """
    )
    result = project.run(*runner, "-x", "-p", "no:cacheprovider", "--vmsnap-standby=1", *light, timeout=170)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E * AssertionError: stopped"])
    (prefix,) = [line.removeprefix("run ") for line in result.outlines if line.startswith("run ")]
    assert qemus(prefix) == []


def test_a_machine_that_libvirt_does_not_end_ends_with_the_run(
    project: pytest.Pytester, light: tuple[str, ...], qemus: Callable[[str], list[int]]
) -> None:
    project.makeconftest(
        """
        from pathlib import Path

        import pytest
        from pytest_vmsnap.host.libvirt.domain import Domain

        @pytest.fixture(autouse=True)
        def nothing_ends(vm, vmsnap):
            Path("prefix").write_text(vmsnap._engine.host.run.prefix)
            Domain.destroy = lambda self: None
        """
    )
    project.makepyfile("def test_one(vm): pass")
    project.runpytest_subprocess(*light, "-p", "no:cacheprovider").assert_outcomes(passed=1)
    assert not qemus((project.path / "prefix").read_text())
