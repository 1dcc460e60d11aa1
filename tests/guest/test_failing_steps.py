"""A failure at each step of making, saving and ending a machine leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from .. import plain

if TYPE_CHECKING:
    from collections.abc import Callable

# The project under test. A step is the first call of one of the plugin's functions in a phase of a test, in
# whichever thread. With a file of steps each test has one of them fail; without, the steps are noted there:
# those of the second test, and as phase "base" those that only the first has, which makes the base state.
CONFTEST = """
import errno, json, os, sys, threading, time
from pathlib import Path

import pytest

from pytest_vmsnap import state
from pytest_vmsnap.errors import HostError
from pytest_vmsnap.host import processes

ROOMS = tuple(f"pytest_vmsnap.{room}." for room in ("host", "fork", "store", "image", "states", "pool"))
FILE = Path("steps.json")
STEPS = [tuple(step) for step in json.loads(FILE.read_text())] if FILE.exists() else []


KINDS = {
    "libvirt": lambda: HostError("injected"),
    "disk": lambda: OSError(errno.ENOSPC, "injected: no space left on device"),
    "interruption": KeyboardInterrupt,
}
# What is made up for when the run ends: an ending that fails, and what notes that a machine was saved.
LATER = {"ending", "aside", "exit", "discard", "end", "finish", "remove", "forget", "destroy", "noted"}
TOLD = ("injected", "no space left", "not enough space")
noted, base, failed, left, other = [], [], [], [], []
phase, armed = None, None


def look(frame, event, argument):
    global armed
    if event != "call" or not phase:
        return
    module = frame.f_globals.get("__name__", "")
    if not module.startswith(ROOMS) or "<" in frame.f_code.co_name:
        return
    main = threading.current_thread() is threading.main_thread()
    step = (phase if main else "aside", f"{module}.{frame.f_code.co_qualname}")
    if not STEPS and step not in noted and "__create_fn__" not in step[1]:
        noted.append(step)
    if armed and step in (armed[:2], (armed[0].replace("base", "making"), armed[1])):
        *where, kind = armed
        armed = None
        failed.append(where)
        sys.setprofile(look)  # it ends with the exception
        raise KINDS[kind]()


threading.setprofile(look)


def during(name):
    @pytest.hookimpl(wrapper=True)
    def hook(item):
        global phase
        phase = name
        sys.setprofile(look)
        return (yield)
    return hook


pytest_runtest_setup = during("making")
pytest_runtest_call = during("saving")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    global phase
    phase = "ending"
    sys.setprofile(look)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_logfinish(nodeid, location):
    global armed
    result = yield
    sys.setprofile(None)
    if not base:
        base[:] = [("base", function) for where, function in noted if where == "making"]
        noted.clear()
    vmsnap = SESSIONS[0]
    prefix = f"vmsnap-{vmsnap._engine.host.run.id}-"
    deadline = time.monotonic() + 60
    while found := leavings(vmsnap, prefix) - KNOWN:
        if failed and {failed[-1][0], failed[-1][1].rpartition(".")[2].strip("_")} & LATER:
            KNOWN.update(found)
        elif time.monotonic() > deadline:
            left.append((nodeid, sorted(found)))
            KNOWN.update(found)
        time.sleep(0.02)
    armed = None
    vmsnap._failures.clear()  # what is made with the next test
    return result


def leavings(vmsnap, prefix):
    found = [name for _, name in processes.qemus() if name.startswith(prefix)]
    found += [str(path) for path in vmsnap.store.path.glob("*/.*") if path.is_dir()]
    data = vmsnap._engine.host.run.data
    found += [str(path) for path in data.iterdir() if path.is_dir() and path.name != "uses"]
    return set(found)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and not any(words in report.longreprtext for words in TOLD):
        other.append((item.nodeid, report.longreprtext[:400]))
    return report


SESSIONS, KNOWN = [], set()


@pytest.fixture(autouse=True, scope="session")
def known(vmsnap):
    SESSIONS.append(vmsnap)


@pytest.fixture(autouse=True)
def failing(request, known):
    global armed
    if "step" in request.fixturenames:
        armed = request.getfixturevalue("step")


def pytest_sessionfinish(session):
    if not STEPS:
        again = [function for _, function in noted]
        FILE.write_text(json.dumps([step for step in base if step[1] not in again] + noted))
    run = SESSIONS[0]._engine.host.run.id if SESSIONS else ""
    Path("found.json").write_text(json.dumps({"failed": failed, "left": left, "other": other, "run": run}))


@pytest.fixture(scope="session")
def vm_spec(vm_spec):
    return vm_spec.replace(disks=[{"size": 8}])


def declare(number):
    def made(vm):
        vm.succeed(f"echo {number} >/made")
    made.__name__ = made.__qualname__ = f"made{number}"
    return state(made)


for number in range(max(2, len(STEPS))):
    globals()[f"made{number}"] = declare(number)
"""
RECORDED = """
import pytest

@pytest.mark.parametrize("number", [pytest.param(n, marks=pytest.mark.vm_state(f"made{n}")) for n in (0, 1)])
def test_it(number, vm):
    vm.snapshot("x")
    vm.succeed("echo later >/later")
    vm.revert("x")
    assert vm.succeed("cat /made; ls /later 2>/dev/null; true") == f"{number}\\n"
"""
EACH = """
import os

import pytest
from conftest import KINDS, STEPS, TOLD

def case(number, phase, function):
    kind = os.environ.get("KIND") or list(KINDS)[number % 2]
    marks = [pytest.mark.vm_state(f"made{number}")]
    if phase == "base":
        marks.append(pytest.mark.vm(memory=161 + number))  # a machine of its own, whose base state is not there
    return pytest.param((phase, function, kind), marks=marks, id=f"{number}-{phase}-{function}-{kind}")

@pytest.mark.parametrize("step", [case(number, *step) for number, step in enumerate(STEPS)])
def test_it(step, vm):
    vm.succeed("echo first >/first; echo first >/dev/vda; sync")
    try:
        vm.snapshot("x")
    except Exception as error:
        assert any(words in str(error) for words in TOLD)
    # the machine goes on as if nothing had been, and what is saved of it then is whole
    vm.succeed("echo then >/then; echo then | dd of=/dev/vda bs=4096 seek=1; sync")
    vm.snapshot("y")
    vm.succeed("rm /first /then; dd if=/dev/zero of=/dev/vda bs=4096 count=2; sync")
    vm.revert("y")
    reads = "head -n 1 /dev/vda; dd if=/dev/vda bs=4096 skip=1 count=1 2>/dev/null | head -n 1"
    assert vm.succeed(f"cat /first /then; {reads}").split() == ["first", "then"] * 2

@pytest.mark.vm_state("made0")
def test_then(vm):
    assert vm.succeed("cat /made") == "0\\n"
"""


@pytest.fixture
def recorded(
    project: pytest.Pytester, light: tuple[str, ...], runner: list[str], monkeypatch: pytest.MonkeyPatch
) -> list[list[str]]:
    """Phase and function of each step; the project's tests have one of them fail in each."""
    options = (*light, "-pno:cacheprovider", *plain.OPTIONS, "--vmsnap-standby=0")
    monkeypatch.setenv("VMSNAP_STORE", str(project.path / "store"))
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(f"'{option}'" for option in options))
    project.makeconftest(CONFTEST)
    project.makepyfile(test_it=RECORDED)
    project.run(*runner).assert_outcomes(passed=2)
    steps: list[list[str]] = json.loads((project.path / "steps.json").read_text())
    assert {phase for phase, _ in steps} == {"base", "making", "saving", "ending", "aside"}
    project.makepyfile(test_it=EACH)
    return steps


def chosen(steps: list[list[str]], every: int) -> list[list[str]]:
    return [step for number, step in enumerate(steps) if number % every == 0]


STEPS_OF_ONE_RUN = 60
EVERY = [32, pytest.param(1, id="all")]


@pytest.mark.thorough
@pytest.mark.parametrize("every", EVERY)
def test_a_failure_at_any_step_leaves_nothing_behind(
    project: pytest.Pytester, runner: list[str], recorded: list[list[str]], every: int
) -> None:
    steps = chosen(recorded, every)
    failed, other, left = 0, [], []
    for first in range(0, len(steps), STEPS_OF_ONE_RUN):
        (project.path / "steps.json").write_text(json.dumps(steps[first : first + STEPS_OF_ONE_RUN]))
        result = project.run(*runner, "--tb=line")
        assert result.ret in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.OK)  # or caught all
        found = json.loads((project.path / "found.json").read_text())
        other += found["other"]
        left += found["left"]
        failed += len(found["failed"])
        shutil.rmtree(project.path / "store")  # it holds a state for each step, all in use by that run
    assert not other, json.dumps(other, indent=1)
    assert not left, json.dumps(left, indent=1)
    assert failed > len(steps) * 0.9  # a few are no steps of every test


@pytest.mark.thorough
@pytest.mark.parametrize("every", [32, 4])
def test_an_interruption_at_any_step_leaves_nothing_behind(
    project: pytest.Pytester,
    runner: list[str],
    recorded: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    qemus: Callable[[str], list[int]],
    every: int,
) -> None:
    monkeypatch.setenv("KIND", "interruption")
    steps = [step for step in chosen(recorded, every) if step[0] != "aside"]
    (project.path / "steps.json").write_text(json.dumps(steps))
    store = project.path / "store"
    for number, (phase, function) in enumerate(steps):
        result = project.run(*runner, "--tb=line", "-k", f"{number}-{phase}- and {function.rpartition('.')[2]}")
        found = json.loads((project.path / "found.json").read_text())
        assert result.ret == pytest.ExitCode.INTERRUPTED
        assert found["failed"] == [[phase, function]]
        assert not qemus(f"vmsnap-{found['run']}-")
        assert not list((store / "runs").iterdir())
        assert not [path for path in store.glob("*/.*") if path.is_dir()]
