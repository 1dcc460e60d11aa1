"""The plugin beside others, in whole runs on real machines: each test has the machine that it is to have."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.host.run_directory import libvirt_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vmsnap.session import VmsnapSession

AT_ONCE = 2.0  # seconds
PATIENCE = 180.0  # seconds until a run has booted its machine, however loaded the host is
NO_CACHE = ("-p", "no:cacheprovider")
ATTEMPTS = """
import pytest

attempts = {}

def attempt(name):
    attempts[name] = attempts.get(name, 0) + 1
    return attempts[name]

def visits(vm):
    found = vm.run("cat /root/visits 2>/dev/null").text
    vm.succeed("echo -n x >>/root/visits")
    return len(found)
"""
RERUN = (
    ATTEMPTS
    + """
@pytest.fixture(scope="session")
def vm_spec(vm_spec):
    return vm_spec.replace(disks=[{"size": 4}])

def test_anew(vm):
    assert vm.read_bytes("/dev/vda")[:5] == bytes(5)
    vm.fail("pgrep -f 'sleep 4321'")
    assert visits(vm) == 0
    vm.succeed("printf dirty | dd of=/dev/vda conv=fsync,notrunc", "sleep 4321 >/dev/null 2>&1 &")
    assert attempt("anew") == 3

@pytest.mark.vm_readonly
def test_reads(vm):
    assert visits(vm) == 0
    assert attempt("reads") == 2

@pytest.mark.vm_readonly
def test_reads_the_machine_of_the_attempt_that_passed(vm):
    assert visits(vm) == 1

@pytest.mark.flaky(reruns=0)
def test_fails(vm):
    vm.succeed("echo words of the console >/dev/console")
    assert False

class TestShared:
    def test_of_the_class(self, vm_class, vm_module):
        assert visits(vm_class) == attempt("class") - 1
        assert visits(vm_module) == attempt("module") - 1
        assert attempts["class"] == 2

    def test_of_the_class_too(self, vm_class, vm_module):
        assert visits(vm_class) == visits(vm_module) == 2
"""
)
SHARED_RERUN = (
    ATTEMPTS
    + """
def test_one(vm):
    assert visits(vm) == 0
    assert attempt("one") == 2

def test_two(vm):
    assert visits(vm) == 1
"""
)
BY_SIGNAL = """
import signal, threading

import pytest
from pytest_vmsnap import state

began = []

@state
def late(vm):
    if not began:
        began.append(vm)
        signal.setitimer(signal.ITIMER_REAL, 0.5)  # what is left of the time
        vm.succeed("sleep 1000", timeout=1000)

@pytest.mark.timeout(600)
@pytest.mark.vm_state("late")
def test_the_state_is_not_ready_in_time(vm): ...

@pytest.mark.vm_state("late")
def test_it_is_made_anew(vm):
    vm.fail("pgrep -f 'sleep 1000'")

def timed_out(seconds):
    return pytest.mark.timeout(seconds, func_only=True)

@timed_out(1)
def test_a_command_runs_for_too_long(vm):
    vm.succeed("echo dirty >/root/dirty; sleep 1000", timeout=1000)

def test_the_next_machine_is_clean(vm):
    vm.fail("cat /root/dirty")

@timed_out(1)
def test_a_shared_machine_s_command_runs_for_too_long(vm_module):
    vm_module.run("cat >/dev/null; sleep 1000", input=b"x" * 100_000, timeout=1000)

@timed_out(1)
def test_a_shared_machine_is_waited_for_too_long(vm_module):
    vm_module.wait_until_succeeds("false", timeout=1000)

def test_the_shared_machine_answers_each_with_its_own(vm_module):
    answers = {}
    def ask(number):
        answers[number] = vm_module.succeed(f"sleep 0.3; echo {number}")
    threads = [threading.Thread(target=ask, args=[number]) for number in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert answers == {number: f"{number}\\n" for number in range(4)}
    vm_module.fail("pgrep -f 'sleep 1000'")
"""
SELECTED = """
import os, pytest

def visit(vm):
    vm.fail("cat /root/seen")
    vm.write_text("/root/seen", "")

def test_one(vm): visit(vm)

@pytest.mark.parametrize("number", [2, 3])
def test_more(vm, number):
    visit(vm)
    assert "MENDED" in os.environ

def test_last(vm): visit(vm)
"""
EXAMPLES = """
from hypothesis import given, settings, strategies as st

given_lists = given(items=st.lists(st.sampled_from("abc"), min_size=1, max_size=3))
machines = set()

def grown(vm, items):
    machines.add(vm.name)
    for item in items:
        vm.succeed(f"echo {item} >>/root/items")
    return vm.read_text("/root/items").split()

@given_lists
def test_each_example_begins_anew(vm, items):
    with vm.rollback():
        assert grown(vm, items) == items

def test_each_had_a_machine_of_its_own():
    assert len(machines) > 3

@given_lists
def test_the_least_example_is_found(vm, items):
    with vm.rollback():
        assert "c" not in grown(vm, items)
"""
EXAMPLES_CONFTEST = """
from hypothesis import HealthCheck, settings

settings.register_profile(
    "machines", deadline=None, max_examples=6, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("machines")
"""
STANDS = """
import pathlib, time

import pytest

@pytest.fixture
def torn_down(vm):
    yield
    pathlib.Path("tearing-down").write_text(vm.succeed("echo alive"))
    while pathlib.Path("hold").exists():
        time.sleep(0.01)

def test_stands_still(torn_down, vm_module):
    pathlib.Path("ready").touch()
    time.sleep(1000)

def test_never_begins(vm): ...
"""
HANGS_AT_THE_END = """
import pathlib, threading, time

def pytest_vmsnap_domain_xml(domain, spec):
    if threading.current_thread().name.startswith("vmsnap-standby"):
        pathlib.Path("ready").touch()
        time.sleep(1000)
"""
FAILS_WHEN_THE_NEXT_IS_BEGUN = """
import pathlib, time

def test_one(vm):
    while not pathlib.Path("ready").exists():
        time.sleep(0.05)
    assert False

def test_two(vm): ...
"""
NEXT = """
import pytest

@pytest.mark.skip(reason="a run that looks at the host, and boots nothing")
def test_next(vm): ...
"""


def having(result: pytest.RunResult, **counts: int) -> None:
    """Hold what a run counted to `counts`, of whatever kind."""
    found = result.parseoutcomes()
    for name in ("warning", "warnings", "deselected"):
        found.pop(name, None) if name not in counts else None
    assert found == counts


def test_what_is_run_again_has_a_clean_machine_and_a_report_shows_its_console(
    project: pytest.Pytester, light: tuple[str, ...]
) -> None:
    project.makepyfile(RERUN)
    options = ("--reruns=2", "--html=report.html", "--self-contained-html", "-W", "error")
    result = project.runpytest_subprocess(*light, *NO_CACHE, *options)
    having(result, passed=5, failed=1, rerun=4)
    assert "words of the console" in (project.path / "report.html").read_text()


@pytest.mark.parametrize("policy", ["marked", "on-failure"])
def test_what_is_run_again_has_a_clean_machine_under_every_policy_and_shares_it_if_it_passed(
    project: pytest.Pytester, light: tuple[str, ...], policy: str
) -> None:
    project.makepyfile(SHARED_RERUN)
    result = project.runpytest_subprocess(*light, *NO_CACHE, "--reruns=1", f"--vmsnap-revert={policy}")
    having(result, passed=2, rerun=1)


def test_a_test_that_times_out_by_signal_leaves_its_machine_to_nobody_and_a_shared_one_in_order(
    project: pytest.Pytester, light: tuple[str, ...]
) -> None:
    project.makepyfile(BY_SIGNAL)
    result = project.runpytest_subprocess(*light, *NO_CACHE, "--timeout-method=signal", "--vmsnap-order=none")
    having(result, passed=3, failed=3, errors=1)
    assert str(result.stdout).count("from pytest-timeout") >= 4


def test_what_is_selected_and_shuffled_has_clean_machines(
    project: pytest.Pytester, light: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    project.makepyfile(SELECTED)
    having(project.runpytest_subprocess(*light, "-x"), passed=1, failed=1)
    monkeypatch.setenv("MENDED", "")
    having(project.runpytest_subprocess(*light, "--ff", "-p", "randomly"), passed=4)


def test_each_example_of_hypothesis_begins_where_the_test_does(
    project: pytest.Pytester, light: tuple[str, ...]
) -> None:
    project.makeconftest(EXAMPLES_CONFTEST)
    project.makepyfile(EXAMPLES)
    result = project.runpytest_subprocess(*light, *NO_CACHE, "-p", "hypothesispytest", "-W", "error")
    having(result, passed=2, failed=1)
    result.stdout.fnmatch_lines(["*items=?'c'?,*"])
    result.stdout.no_fnmatch_line("*Flaky*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A pytest process with machines: its output in a file, its id and its directory of sockets."""

    process: subprocess.Popen[bytes]
    output: Path
    store: Path
    id: str
    sockets: Path

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    @property
    def said(self) -> str:
        return self.output.read_text()

    def leftovers(self) -> list[Path]:
        """What it has on disk still."""
        places = [self.sockets, *(self.store / "runs").glob(f"{self.id}*")]
        logs = [path for place in libvirt_logs().values() for path in place.glob(f"vmsnap-{self.id}-*")]
        return [path for path in places + logs if path.exists()]


@pytest.fixture
def begun(
    project: pytest.Pytester,
    light: tuple[str, ...],
    runner: list[str],
    vmsnap: VmsnapSession,
    wait_for: Callable[..., None],
) -> Iterator[Callable[..., Run]]:
    """`begun(*options)`: a run of the project, as soon as there is the file ``ready``."""
    store = vmsnap.store.path
    runs: list[subprocess.Popen[bytes]] = []

    def begin(*options: str) -> Run:
        output = project.path / "output"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*runner, *light, *NO_CACHE, *options],
                cwd=project.path,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=hearing,
            )
        runs.append(process)
        wait_for(lambda: (project.path / "ready").exists() or process.poll() is not None, "a machine", PATIENCE)
        for record in (store / "runs").glob("*/run.json"):
            found = json.loads(record.read_text())
            if found["pid"] == process.pid:
                name, sockets = record.parent.name, Path(found["sockets"])
                return Run(process=process, output=output, store=store, id=name, sockets=sockets)
        raise AssertionError(output.read_text())

    yield begin
    for process in runs:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def hearing() -> None:
    """Hear Ctrl-C, as a process that a shell began in its background does not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def left_by(
    project: pytest.Pytester, qemus: Callable[[str], list[int]], wait_for: Callable[..., None]
) -> Callable[[Run], list[Path]]:
    """`left_by(run)`: what is left of it after the next start; its QEMUs end without that."""

    def left(run: Run) -> list[Path]:
        wait_for(lambda: not qemus(f"vmsnap-{run.id}-"), "the end of its QEMUs", 5.0)
        project.makepyfile(test_next=NEXT)
        having(project.runpytest_subprocess(*NO_CACHE, "test_next.py"), skipped=1)
        return run.leftovers()

    return left


def test_after_a_time_out_by_thread_the_next_start_finds_nothing(
    project: pytest.Pytester, begun: Callable[..., Run], left_by: Callable[[Run], list[Path]]
) -> None:
    project.makepyfile(STANDS)
    run = begun("--timeout=3", "--timeout-method=thread", "-o", "timeout_func_only=true")
    assert run.process.wait(PATIENCE) == 1
    assert "Timeout" in run.said
    assert not left_by(run)


def test_ctrl_c_tears_down_what_is_open_with_its_machine_and_says_so(
    project: pytest.Pytester, begun: Callable[..., Run], qemus: Callable[[str], list[int]]
) -> None:
    project.makepyfile(STANDS)
    run = begun()
    run.interrupt()
    assert run.process.wait(60) == pytest.ExitCode.INTERRUPTED
    assert (project.path / "tearing-down").read_text() == "alive\n"
    assert "vmsnap: interrupted: tearing down fixtures and ending the machines; press Ctrl-C" in run.said
    assert "KeyboardInterrupt" in run.said
    assert "Traceback" not in run.said
    assert not qemus(f"vmsnap-{run.id}-")
    assert not run.leftovers()


def test_a_second_ctrl_c_ends_at_once_whatever_holds_the_first_and_the_next_start_cleans_up(
    project: pytest.Pytester,
    begun: Callable[..., Run],
    left_by: Callable[[Run], list[Path]],
    wait_for: Callable[..., None],
) -> None:
    project.makepyfile(STANDS)
    (project.path / "hold").touch()
    run = begun()
    run.interrupt()
    wait_for((project.path / "tearing-down").exists, "the teardown")
    run.interrupt()
    assert run.process.wait(AT_ONCE) == -signal.SIGINT
    assert "Traceback" not in run.said
    assert not left_by(run)


def test_ctrl_c_while_the_machines_are_ended_leaves_the_summary_and_a_second_ends_at_once(
    project: pytest.Pytester,
    begun: Callable[..., Run],
    left_by: Callable[[Run], list[Path]],
    wait_for: Callable[..., None],
) -> None:
    project.makeconftest(HANGS_AT_THE_END)
    project.makepyfile(FAILS_WHEN_THE_NEXT_IS_BEGUN)
    run = begun("-x", "--vmsnap-standby=1")
    wait_for(lambda: "vmsnap: ending the machines ..." in run.said, "the end")
    run.interrupt()
    wait_for(lambda: "1 failed" in run.said, "the summary")
    run.interrupt()
    assert run.process.wait(AT_ONCE) == -signal.SIGINT
    assert "Traceback" not in run.said
    assert not left_by(run)
