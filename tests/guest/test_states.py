"""States: layers of known-good, built once, kept between runs: whole runs over a store of their own."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .test_runs import begin

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap.session import VmsnapSession

CONFTEST = """
from pathlib import Path

from pytest_vmsnap import state

GREETING = "hello"


def note(what):
    with open(Path(__file__).parent / "built", "a") as notes:
        notes.write(what + "\\n")


def pytest_vmsnap_prepare(vm):
    note("base")
    vm.write_text("/base", "base\\n")


@state(inputs=["input*"])
def database(vm):
    note("database")
    vm.write_text("/dev/database", GREETING)
    vm.succeed("sleep 777 >/dev/null 2>&1 &")


@state(parent=database)
def service(vm):
    note("service")
    greeted(vm)


def greeted(vm):
    vm.succeed("cat /dev/database >/service; echo ' world' >>/service")


@state
def broken(vm):
    note("broken")
    vm.succeed("echo why >&2; false")


@state(parent="broken")
def below_broken(vm):
    note("below_broken")
"""

TESTS = """
import pytest

@pytest.mark.vm_state("service")
def test_service(vm):
    assert vm.read_text("/service") == "hello world\\n"
    assert vm.read_text("/base") == "base\\n"
    vm.succeed("pgrep -f 'sleep 777'; rm /service")
    assert vm.state == "service"

@pytest.mark.vm_state("database")
class TestDatabase:
    def test_database(self, vm):
        assert vm.read_text("/dev/database") == "hello"
        vm.fail("cat /service")

    def test_further(self, vm_factory):
        one, two = vm_factory("service"), vm_factory(name="other")
        one.succeed("cat /service")
        two.fail("cat /dev/database")

@pytest.mark.vm_state("service")
def test_service_again(vm):
    vm.succeed("cat /service")

def test_base(vm):
    vm.fail("cat /dev/database")
"""


@pytest.fixture
def stated(
    project: pytest.Pytester, vmsnap: VmsnapSession, monkeypatch: pytest.MonkeyPatch, light: tuple[str, ...]
) -> pytest.Pytester:
    """A project with states, over an empty store of its own."""
    store = vmsnap.store.path / "runs" / f"{vmsnap._host.run.id}" / f"store-{project.path.name}"  # type: ignore[union-attr]
    monkeypatch.setenv("VMSNAP_STORE", str(store))
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(f"'{option}'" for option in light))
    (project.path / "input").write_text("one")
    project.makeconftest(CONFTEST)
    project.makepyfile(TESTS)
    return project


def built(project: pytest.Pytester) -> list[str]:
    """What was built since this was asked last."""
    notes = project.path / "built"
    found = notes.read_text().split() if notes.exists() else []
    notes.unlink(missing_ok=True)
    return found


def run(project: pytest.Pytester, *arguments: str, passed: int = 5) -> str:
    result = project.runpytest_subprocess("-p", "no:cacheprovider", *arguments)
    result.assert_outcomes(passed=passed)
    return result.stdout.str()


def entries(kind: str = "states") -> list[Path]:
    found = Path(os.environ["VMSNAP_STORE"]) / kind
    return [path for path in found.iterdir() if not path.name.startswith(".")]


def test_each_state_is_built_once_and_not_at_all_in_a_second_run_but_what_changed(
    stated: pytest.Pytester,
) -> None:
    first = run(stated, "-v")
    assert built(stated) == ["base", "database", "service"]
    names = [line.split("::")[-1].split()[0] for line in first.splitlines() if "PASSED" in line]
    assert names == ["test_database", "test_further", "test_service", "test_service_again", "test_base"]
    again = run(stated)
    assert built(stated) == []
    assert "booting" not in again

    conftest = stated.path / "conftest.py"
    conftest.write_text(CONFTEST.replace("' world'", "'  world'").replace("# none", ""))
    stated.makepyfile(TESTS.replace("hello world", "hello  world"))
    run(stated)
    assert built(stated) == ["service"]  # its helper changed
    conftest.write_text(CONFTEST.replace("def note", "# a word\ndef note"))
    stated.makepyfile(TESTS)
    run(stated)
    assert built(stated) == []  # as at first
    (stated.path / "input").write_text("two")
    run(stated)
    assert built(stated) == ["database", "service"]
    run(stated, "--vmsnap-refresh-state=database")
    assert built(stated) == ["database", "service"]
    run(stated, "--vmsnap-memory=160", "-k", "test_base", passed=1)
    assert built(stated) == ["base"]
    run(stated, "--vmsnap-refresh", "-k", "test_base", passed=1)
    assert built(stated) == ["base"]


def test_a_state_that_fails_is_told_once_and_never_kept_and_others_run(stated: pytest.Pytester) -> None:
    stated.makepyfile(
        """
        import pytest

        @pytest.mark.vm_state("below_broken")
        def test_below(vm): ...

        @pytest.mark.vm_state("broken")
        def test_one(vm): ...

        @pytest.mark.vm_state("broken")
        def test_two(vm): ...

        @pytest.mark.vm_state("database")
        def test_other(vm): ...
        """
    )
    result = stated.runpytest_subprocess("-p", "no:cacheprovider", "-rA")
    result.assert_outcomes(passed=1, errors=3)
    output = result.stdout.str()
    assert output.count("AssertionError") <= 3
    assert output.count("why") >= 1
    assert output.count("(see ") >= 2
    assert built(stated) == ["base", "broken", "database"]
    assert len(entries()) == 2


@pytest.mark.parametrize("fault", ["truncated memory", "changed overlay", "lost parent", "no metadata"])
def test_a_damaged_entry_is_noticed_before_a_test_runs_on_it_and_made_anew(
    stated: pytest.Pytester, fault: str
) -> None:
    run(stated)
    built(stated)
    (base,) = [entry for entry in entries() if (entry / "ram").exists()]
    children = [entry for entry in entries() if entry != base]
    expected = ["database", "service"]
    if fault == "truncated memory":
        (base / "ram").chmod(0o600)
        os.truncate(base / "ram", 1 << 20)
        expected = ["base", *expected]
    elif fault == "changed overlay":
        for child in children:
            disk = next(child.glob("pages/*"))
            disk.chmod(0o600)
            with disk.open("r+b") as file:
                file.write(b"changed")
    elif fault == "lost parent":
        shutil.rmtree(base)
        expected = ["base", *expected]
    else:
        for child in children:
            (child / "meta.json").unlink()
    output = run(stated)
    assert "is damaged, and is made anew" in output
    assert sorted(built(stated)) == sorted(expected)
    assert len(entries()) == 3


def test_two_runs_at_once_build_a_state_once(
    stated: pytest.Pytester, runner: list[str], wait_for: Callable[..., None]
) -> None:
    first, second = (begin(runner, stated.path) for _ in range(2))
    outputs = [process.communicate(timeout=600)[0] for process in (first, second)]
    for output in outputs:
        assert "5 passed" in output
    assert sorted(built(stated)) == ["base", "database", "service"]
    assert any("waiting for another run that makes the state base" in output for output in outputs)


@pytest.mark.parametrize("moment", ["base", "database", "service"])
def test_a_build_that_is_killed_leaves_nothing_that_is_used(
    stated: pytest.Pytester, runner: list[str], wait_for: Callable[..., None], moment: str
) -> None:
    process = begin(runner, stated.path)
    notes = stated.path / "built"
    wait_for(lambda: notes.exists() and moment in notes.read_text().split(), f"the building of {moment}")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = built(stated)[:-1]
    assert len(entries()) <= len(before)
    run(stated)
    assert sorted(built(stated) + before) == ["base", "database", "service"]


def test_the_store_is_moved_with_its_states(stated: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    run(stated)
    built(stated)
    old = os.environ["VMSNAP_STORE"]
    shutil.copytree(old, f"{old}-moved")  # times are kept, holes are not
    shutil.rmtree(old)
    monkeypatch.setenv("VMSNAP_STORE", f"{old}-moved")
    output = run(stated)
    assert built(stated) == []
    assert "damaged" not in output


def test_what_was_not_used_for_longest_goes_first_and_nothing_in_use(stated: pytest.Pytester) -> None:
    run(stated)
    assert len(entries()) == 3
    run(stated, "--vmsnap-store-limit=1", "-k", "test_base", passed=1)
    assert len(entries()) == 1  # base is in use
    assert not entries("memory")
    built(stated)
    run(stated)
    assert built(stated) == ["database", "service"]
