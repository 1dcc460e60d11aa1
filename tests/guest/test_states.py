"""States: layers of known-good, built once, kept between runs: whole runs over a store of their own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .. import plain
from .stores import copy_tree
from .test_runs import begin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    project: pytest.Pytester, own_store: Path, monkeypatch: pytest.MonkeyPatch, light: tuple[str, ...]
) -> pytest.Pytester:
    """A project with states, over an empty store of its own."""
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join([plain.ADDOPTS, *(f"'{option}'" for option in light)]))
    (project.path / "input").write_text("one")
    project.makeconftest(CONFTEST)
    project.makepyfile(TESTS)
    return project


@pytest.fixture(scope="module")
def warm(vmsnap: VmsnapSession) -> Iterator[Path]:
    """The place of a store in which the states are, once `kept` has filled it."""
    assert vmsnap.facts
    assert vmsnap._engine
    place = vmsnap._engine.host.run.data / "store-warm"
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def kept(stated: pytest.Pytester, own_store: Path, warm: Path) -> pytest.Pytester:
    """`stated` over a store in which its states are: a copy of one that one run has filled."""
    if not warm.exists():
        run(stated)
        own_store.rename(warm)
    copy_tree(warm, own_store)
    built(stated)
    return stated


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


@pytest.mark.smoke
def test_each_state_is_built_once_and_not_at_all_in_a_second_run(stated: pytest.Pytester) -> None:
    first = run(stated, "-v")
    assert built(stated) == ["base", "database", "service"]
    names = [line.split("::")[-1].split()[0] for line in first.splitlines() if "PASSED" in line]
    assert names == ["test_base", "test_database", "test_further", "test_service", "test_service_again"]
    again = run(stated)
    assert built(stated) == []
    assert "booting" not in again


@pytest.mark.thorough
def test_what_changed_is_made_anew_with_what_depends_on_it(kept: pytest.Pytester) -> None:
    conftest = kept.path / "conftest.py"
    conftest.write_text(CONFTEST.replace("' world'", "'  world'"))
    kept.makepyfile(TESTS.replace("hello world", "hello  world"))
    run(kept)
    assert built(kept) == ["service"]  # its helper changed
    conftest.write_text(CONFTEST.replace("def note", "# a word\ndef note"))
    kept.makepyfile(TESTS)
    (kept.path / "input").write_text("two")
    run(kept)
    assert built(kept) == ["database", "service"]
    (kept.path / "input").write_text("one")
    run(kept)
    assert built(kept) == []  # as at first
    run(kept, "--vmsnap-memory=192", "-k", "test_base", passed=1)
    assert built(kept) == ["base"]


@pytest.mark.thorough
def test_what_is_to_be_made_anew_is_made_anew_with_what_depends_on_it(kept: pytest.Pytester) -> None:
    run(kept, "--vmsnap-refresh-state=database")
    assert built(kept) == ["database", "service"]
    run(kept, "--vmsnap-refresh", "-k", "test_base", passed=1)
    assert built(kept) == ["base"]
    result = kept.runpytest_subprocess("-p", "no:cacheprovider", "--vmsnap-refresh-state=databse")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --vmsnap-refresh-state=databse: there is no state 'databse'", "did you mean database?*"]
    )


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


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("truncated memory", marks=pytest.mark.thorough),
        pytest.param("changed overlay", marks=pytest.mark.thorough),
        "lost parent",
        pytest.param("no metadata", marks=pytest.mark.thorough),
    ],
)
def test_a_damaged_entry_is_noticed_before_a_test_runs_on_it_and_made_anew(
    kept: pytest.Pytester, fault: str
) -> None:
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
    output = run(kept)
    assert "will be rebuilt" in output
    assert sorted(built(kept)) == sorted(expected)
    assert len(entries()) == 3


def test_two_runs_at_once_build_a_state_once(
    stated: pytest.Pytester, runner: list[str], wait_for: Callable[..., None]
) -> None:
    first, second = (begin(runner, stated.path) for _ in range(2))
    outputs = [process.communicate(timeout=600)[0] for process in (first, second)]
    for output in outputs:
        assert "5 passed" in output
    assert sorted(built(stated)) == ["base", "database", "service"]
    words = r"waiting for another run \(process \d+\), which builds the state base"
    assert any(re.search(words, output) for output in outputs)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("base", marks=pytest.mark.thorough),
        pytest.param("database", marks=pytest.mark.thorough),
        "service",
    ],
)
def test_a_build_that_is_killed_leaves_nothing_that_is_used(
    kept: pytest.Pytester, runner: list[str], wait_for: Callable[..., None], moment: str
) -> None:
    whole = len(entries())
    process = begin(runner, kept.path, f"--vmsnap-refresh-state={moment}")
    notes = kept.path / "built"
    wait_for(lambda: notes.exists() and moment in notes.read_text().split(), f"the building of {moment}")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert built(kept) == [moment]
    assert len(entries()) < whole
    run(kept)
    expected = ["base", "database", "service"]
    assert built(kept) == expected[expected.index(moment) :]


def test_a_save_that_is_killed_leaves_nothing_that_is_used(
    kept: pytest.Pytester, runner: list[str], wait_for: Callable[..., None]
) -> None:
    process = begin(runner, kept.path, "--vmsnap-refresh-state=database")
    states = Path(os.environ["VMSNAP_STORE"]) / "states"
    wait_for(lambda: list(states.glob(".*/pages/*")), "the first pages", pause=0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    built(kept)
    run(kept)
    anew = built(kept)
    assert anew in (["database", "service"], ["service"])  # it may have been whole by then
    assert not list(states.glob(".*"))


@pytest.mark.smoke
@pytest.mark.skipif(os.geteuid() != 0, reason="root makes small file systems")
def test_a_state_that_has_no_room_is_told_and_leaves_nothing_and_others_run(
    stated: pytest.Pytester, request: pytest.FixtureRequest
) -> None:
    store = Path(os.environ["VMSNAP_STORE"])
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600M", "none", store], check=True)
    request.addfinalizer(lambda: subprocess.run(["umount", "--lazy", store], check=True))
    stated.makeconftest(
        """
        import os, pathlib
        from pytest_vmsnap import state

        @state
        def small(vm): vm.succeed("echo small >/dev/small")

        @state
        def large(vm):
            vm.succeed("head -c 20000000 /dev/urandom >/dev/large")
            if pathlib.Path("ballast").exists():  # others fill the disk meanwhile
                with open(os.environ["VMSNAP_STORE"] + "/ballast", "wb") as ballast:
                    found = os.fstatvfs(ballast.fileno())
                    os.posix_fallocate(ballast.fileno(), 0, found.f_bavail * found.f_bsize - 60_000_000)
        """
    )
    (stated.path / "ballast").touch()
    stated.makepyfile(
        """
        import pytest

        def test_base(vm): ...

        @pytest.mark.vm_state("large")
        @pytest.mark.parametrize("number", range(2))
        def test_large(vm, number): vm.succeed("test -e /dev/large")

        @pytest.mark.vm_state("small")
        def test_small(vm): ...
        """
    )
    result = stated.runpytest_subprocess("-p", "no:cacheprovider", "-k", "base or large", "--vmsnap-standby=0")
    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(
        [
            "not enough space in * for a snapshot of * MiB, and * MiB for the machine to continue *",
            "free some space*",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    assert len(entries()) == 1
    assert not list((store / "states").glob(".*"))
    (stated.path / "ballast").unlink()
    (store / "ballast").unlink()
    run(stated, passed=4)


def test_the_store_is_moved_with_its_states(kept: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    old = os.environ["VMSNAP_STORE"]
    for path in Path(old).rglob("*"):
        if path.is_file():
            os.utime(path)  # as a copy may have it; its holes were filled already
    shutil.move(old, f"{old}-moved")
    monkeypatch.setenv("VMSNAP_STORE", f"{old}-moved")
    output = run(kept)
    assert built(kept) == []
    assert "the state" not in output


def test_what_was_not_used_for_longest_goes_first_and_nothing_in_use(kept: pytest.Pytester) -> None:
    assert len(entries()) == 3
    run(kept, "--vmsnap-store-limit=1", "-k", "test_base", passed=1)
    assert len(entries()) == 1  # base is in use
    assert not entries("memory")
    run(kept)
    assert built(kept) == ["database", "service"]


def vmsnap(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.run(Path(sys.executable).with_name("vmsnap"), *arguments)


def test_the_command_shows_states_takes_them_elsewhere_and_removes_them(
    kept: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = vmsnap(kept, "states", "--all")
    listed.stdout.fnmatch_lines(
        ["base@* full *MiB*", "  database@* incremental *", "    service@* incremental *"]
    )
    elsewhere = kept.mkdir("elsewhere")
    (elsewhere / "pytest.ini").write_text("[pytest]")
    with monkeypatch.context() as there:
        there.chdir(elsewhere)
        vmsnap(kept, "states").stdout.fnmatch_lines(
            ["no states of this project in *; 3 of other projects (--all)"]
        )

    written = vmsnap(kept, "export", "service", "file.vmsnap")
    written.stdout.fnmatch_lines(["file.vmsnap: service@*"])
    refused = vmsnap(kept, "flatten", "service", "disk.qcow2")
    assert refused.ret == 1
    refused.stderr.fnmatch_lines(["vmsnap: the state service@* has no disk"])
    refused = vmsnap(kept, "export", "service", "/proc/file.vmsnap")  # where no file can be made
    assert refused.ret == 1
    refused.stderr.fnmatch_lines(["vmsnap: /proc/*: *"])
    refused.stderr.no_fnmatch_line("Traceback*")

    dry = vmsnap(kept, "prune", "--all", "--dry-run")
    dry.stdout.fnmatch_lines(["would remove service@* (states): * MiB", "would remove base@* (states): * MiB"])
    assert len(entries()) == 3
    vmsnap(kept, "prune", "service").stdout.fnmatch_lines(["removed service@*"])
    assert len(entries()) == 2
    vmsnap(kept, "prune", "--all")
    assert not entries()

    assert vmsnap(kept, "import", "file.vmsnap").ret == 0
    run(kept, "-k", "test_service", passed=2)
    assert built(kept) == []  # it is all there
