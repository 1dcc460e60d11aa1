"""pytest-xdist: workers build each state once between them, and leave nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from .. import plain
from .stores import copy_tree
from .test_runs import begin

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from pytest_vmsnap.session import VmsnapSession

pytest.importorskip("xdist")

PATIENCE = 300.0  # seconds for a whole run, however loaded the host is

CONFTEST = """
import os, time
from pathlib import Path

import pytest

from pytest_vmsnap import state
from pytest_vmsnap.session.engine import Engine

HERE = Path(__file__).parent
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")


def note(file, what):
    with open(HERE / file, "a") as notes:
        notes.write(f"{what}\\n")


def pytest_vmsnap_prepare(vm):
    note("built", "base")


@state
def one(vm):
    note("built", "one")
    vm.write_text("/state", "one")


@state
def two(vm):
    note("built", "two")
    vm.write_text("/state", "two")


@state
def slow(vm):
    note("built", "slow")
    note("building", os.getpid())
    while not (HERE / "go").exists():
        time.sleep(0.05)


@pytest.fixture
def met():
    def wait(name, number):
        note(name, WORKER)
        while len(set((HERE / name).read_text().split())) < number:
            time.sleep(0.05)
    return wait


begin, close = Engine.__init__, Engine.close


def named(self, *arguments, **named):
    begin(self, *arguments, **named)
    note("runs", self.host.run.id)


def noted(self):
    close(self)
    note("closed", self.host.run.id)


Engine.__init__, Engine.close = named, noted
"""

TESTS = """
import pytest

@pytest.mark.vm_state("one")
@pytest.mark.parametrize("number", range(4))
def test_one(vm, number):
    assert vm.read_text("/state") == "one"
    vm.succeed("rm /state")

@pytest.mark.vm_state("two")
@pytest.mark.parametrize("number", range(4))
def test_two(vm, number):
    assert vm.read_text("/state") == "two"
    vm.succeed("rm /state")

def test_base(vm):
    vm.fail("cat /state")

def test_without_a_machine():
    pass
"""


@pytest.fixture
def spread(
    project: pytest.Pytester, own_store: Path, monkeypatch: pytest.MonkeyPatch, light: tuple[str, ...]
) -> pytest.Pytester:
    """A project with states, over an empty store of its own."""
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(f"'{option}'" for option in (*light, *plain.OPTIONS)))
    project.makeconftest(CONFTEST)
    project.makepyfile(test_it=TESTS)
    return project


@pytest.fixture(scope="module")
def filled(vmsnap: VmsnapSession) -> Iterator[Path]:
    """The place of a store in which the states are, once `cold` or `warm` has filled it."""
    assert vmsnap.facts
    assert vmsnap._engine
    place = vmsnap._engine.host.run.data / "store-spread"
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def warm(spread: pytest.Pytester, own_store: Path, runner: list[str], filled: Path) -> pytest.Pytester:
    """`spread` over a store in which its states are."""
    if not filled.exists():
        output(begin(runner, spread.path, "-n2"))
        copy_tree(own_store, filled)
    if not own_store.exists():
        copy_tree(filled, own_store)
    for name in ("built", "closed", "runs"):
        notes(spread, name)
    return spread


def notes(project: pytest.Pytester, name: str) -> list[str]:
    """What the project has noted since this was asked last."""
    path = project.path / name
    found = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def output(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=PATIENCE)[0]


def header(text: str) -> list[str]:
    """The header's second part and the line of the summary, without the figures."""
    lines = [line for line in text.splitlines() if re.match(r"vmsnap: (qemu:|image |\d+ state)", line)]
    return [re.sub(r"[\d.]+ (ms|s)\b|\d+ of", "N", line) for line in lines]


@pytest.fixture
def expect_nothing_left(spread: pytest.Pytester, qemus: Callable[[str], list[int]]) -> Callable[[], list[str]]:
    """`expect_nothing_left()`: no machine or file of the runs until now is left; returns the runs' ids."""

    def expect() -> list[str]:
        assert list((Path(os.environ["VMSNAP_STORE"]) / "runs").iterdir()) == []
        runs = notes(spread, "runs")
        assert runs
        assert not [pid for run in runs for pid in qemus(f"vmsnap-{run}-")]
        return runs

    return expect


@pytest.mark.thorough
def test_two_whole_runs_of_two_workers_build_each_state_once(
    spread: pytest.Pytester,
    runner: list[str],
    filled: Path,
    expect_nothing_left: Callable[[], list[str]],
) -> None:
    texts = [output(process) for process in [begin(runner, spread.path, "-n2") for _ in range(2)]]
    for text in texts:
        assert "10 passed" in text
        assert "9 reverts" in text
    assert sorted(notes(spread, "built")) == ["base", "one", "two"]
    together = "\n".join(texts)
    assert sum(int(number) for number in re.findall(r"(\d+) states? built", together)) == 3
    whom = r"\[gw\d\] waiting for worker gw\d(?: of another run)? \(process \d+\), which builds the state base"
    assert re.search(rf"vmsnap: {whom} \.\.\.", together)
    assert re.search(r"vmsnap: \[gw\d\] booting ", together)
    expect_nothing_left()
    if not filled.exists():
        copy_tree(Path(os.environ["VMSNAP_STORE"]), filled)


def test_header_order_summary_and_junit_are_as_without_workers(
    warm: pytest.Pytester, runner: list[str]
) -> None:
    alone = output(begin(runner, warm.path, "--junitxml=alone.xml", "-v"))
    spread = output(begin(runner, warm.path, "-n2", "--junitxml=spread.xml", "--vmsnap-timings", "-v"))
    assert notes(warm, "built") == []
    assert "10 passed" in spread
    assert header(alone) == header(spread)
    assert len(header(spread)) == 3
    assert header(spread)[-1].startswith("vmsnap: 3 states from the store, 9 reverts, ")
    for column in ("built in", "the store", "made ahead  test", "test_it.py::test_one[0]"):
        assert column in spread
    assert "vmsnap timings" not in alone
    first, second = (properties(warm.path / f"{name}.xml") for name in ("alone", "spread"))
    assert first.keys() == second.keys()
    assert second["test_one[0]"]["vmsnap_state"] == "one"
    assert float(second["test_one[0]"]["vmsnap_revert_seconds"]) > 0
    assert second["test_one[0]"]["vmsnap_standby"] in ("hit", "made")
    assert second["test_without_a_machine"] == {}
    for found in (first, second):
        assert found["pytest"]["vmsnap_states_from_store"] == "3"
        assert found["pytest"]["vmsnap_reverts"] == "9"


def properties(path: Path) -> dict[str, dict[str, str]]:
    """The properties of the suite and of each test in a file of junit's."""
    root = ElementTree.parse(path)
    return {
        each.attrib["name"]: {p.attrib["name"]: p.attrib["value"] for p in each.findall("properties/property")}
        for each in [*root.iter("testsuite"), *root.iter("testcase")]
    }


@pytest.mark.parametrize("dist", ["loadscope", "loadfile", "worksteal", "loadgroup"])
def test_every_way_to_hand_tests_out_is_served_from_the_store(
    warm: pytest.Pytester, runner: list[str], dist: str, expect_nothing_left: Callable[[], list[str]]
) -> None:
    anew = ["--vmsnap-refresh-state=one"] if dist == "worksteal" else []
    text = output(begin(runner, warm.path, "-n2", f"--dist={dist}", "-v", *anew))
    assert "10 passed" in text
    assert notes(warm, "built") == (["one"] if anew else [])  # once by all workers
    assert sorted(notes(warm, "closed")) == sorted(expect_nothing_left())  # xdist had to kill no worker
    if dist == "loadgroup":
        ran = re.findall(r"\[(gw\d)\].* PASSED test_it\.py::test_(one|two)\[\d\] *$", text, re.MULTILINE)
        assert len(ran) == 8
        assert len(set(ran)) == 2  # a state for each worker


def test_no_more_machines_wait_than_the_host_can_make_and_all_end_at_the_first_failure(
    warm: pytest.Pytester, runner: list[str], expect_nothing_left: Callable[[], list[str]]
) -> None:
    warm.makepyfile(
        test_it="""
        import os, time
        from pathlib import Path

        import pytest

        from pytest_vmsnap.host import processes

        @pytest.mark.parametrize("number", range(20))
        def test_it(vm, vmsnap, met, number):
            if os.path.exists("counted"):
                return  # not the first test of its worker
            standbys = vmsnap._engine.pool._standbys
            while standbys._on_the_way:
                time.sleep(0.05)
            met("there", 4)
            runs = os.listdir(vmsnap.store.runs)
            mine = [name for _, name in processes.qemus() if name.split("-")[1] in runs]
            assert 4 <= len(mine) <= 4 + len(os.sched_getaffinity(0))
            met("counted", 4)
            assert os.environ["PYTEST_XDIST_WORKER"] != "gw0", "the first failure"
        """
    )
    text = output(begin(runner, warm.path, "-n4", "-x"))
    assert re.search(r"1 failed, \d+ passed", text), text
    assert "the first failure" in text
    assert len(notes(warm, "closed")) == 4  # xdist had to kill no worker
    expect_nothing_left()


def test_another_worker_goes_on_with_the_build_of_one_that_was_killed(
    warm: pytest.Pytester,
    runner: list[str],
    wait_for: Callable[..., None],
    expect_nothing_left: Callable[[], list[str]],
) -> None:
    warm.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.vm_state("slow")
        @pytest.mark.parametrize("number", range(4))
        def test_slow(vm, number):
            vm.succeed("true")
        """
    )
    process = begin(runner, warm.path, "-n2")
    building = warm.path / "building"
    wait_for(lambda: building.exists() or process.poll() is not None, "a build")
    builder = int(building.read_text().split()[0])
    assert process.stdout
    limit = Timer(300, process.kill)  # without the line, its output ends
    limit.start()
    lines = iter(process.stdout.readline, "")
    waits = next((line for line in lines if "which builds the state slow" in line), "")
    limit.cancel()
    assert f"(process {builder})" in waits
    os.kill(builder, signal.SIGKILL)
    wait_for(lambda: len(building.read_text().split()) == 2, "another who builds")
    (warm.path / "go").touch()
    text = output(process)
    assert re.search(r"worker 'gw\d' crashed while running 'test_it.py::test_slow", text), text
    assert "1 failed, 3 passed" in text
    assert process.returncode == pytest.ExitCode.TESTS_FAILED
    assert notes(warm, "built") == ["slow", "slow"]
    assert not list((Path(os.environ["VMSNAP_STORE"]) / "states").glob(".*"))
    expect_nothing_left()


def test_a_worker_that_is_killed_amid_a_test_is_replaced_and_leaves_nothing(
    warm: pytest.Pytester, runner: list[str], expect_nothing_left: Callable[[], list[str]]
) -> None:
    warm.makepyfile(
        test_it="""
        import os, signal
        import pytest

        @pytest.mark.parametrize("number", range(6))
        def test_it(vm, met, number):
            vm.succeed("true")
            if number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    process = begin(runner, warm.path, "-n2")
    text = output(process)
    assert "crashed while running 'test_it.py::test_it[1]'" in text
    assert "1 failed, 5 passed" in text
    assert process.returncode == pytest.ExitCode.TESTS_FAILED
    assert re.search(r"vmsnap: 1 state from the store, \d reverts", text)
    expect_nothing_left()


@pytest.mark.parametrize("whom", ["all", "the controller"])
def test_ctrl_c_ends_all_workers_with_nothing_left(
    warm: pytest.Pytester,
    runner: list[str],
    wait_for: Callable[..., None],
    expect_nothing_left: Callable[[], list[str]],
    whom: str,
) -> None:
    warm.makepyfile(
        test_it="""
        import time
        import pytest

        @pytest.mark.parametrize("number", range(8))
        def test_stands_still(vm, met, number):
            met("ready", 2)
            time.sleep(1000)
        """
    )
    process = begin(runner, warm.path, "-n2")
    ready = warm.path / "ready"
    wait_for(lambda: ready.exists() and len(set(ready.read_text().split())) == 2, "two tests")
    if whom == "all":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    text = output(process)
    assert "KeyboardInterrupt" in text
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert len(notes(warm, "closed")) == 2  # xdist had to kill no worker
    expect_nothing_left()
