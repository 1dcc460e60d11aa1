"""What is kept and shown of a failure, by whole runs of a project with machines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

CONFTEST = """
import pytest

from pytest_vmsnap import state

@pytest.fixture
def breaks_later(vm):
    yield
    vm.succeed("echo words of the teardown >/dev/console")
    raise OSError("on purpose")

@pytest.fixture
def breaks_before(vm):
    vm.succeed("echo words of the set-up >/dev/console")
    raise OSError("on purpose")

@state
def broken(vm):
    vm.succeed("echo words of the state >/dev/console; sleep 0.5")  # until the serial line has sent them
    vm.succeed("echo the reason >&2; false")
"""
TESTS = """
import os
import signal
import time

import pytest

def test_passes(vm):
    vm.succeed("true")

def test_fails(vm, request):
    vm_factory = request.getfixturevalue("vm_factory")  # as one does that chooses while it runs
    other = vm_factory(name="other")
    with pytest.raises(pytest.UsageError, match="already has a machine of this name"):
        vm_factory(name="other")
    other.succeed("echo words of the other >/dev/console")
    vm.succeed("echo words of the call >/dev/console; echo spoken; echo words to the kernel >/dev/kmsg")
    for _ in range(3):
        vm.run("false")
    assert 0

def test_shared_first(vm_module):
    vm_module.succeed("echo words of the first >/dev/console")

def test_shared_second(vm_module):
    vm_module.succeed("echo words of the second >/dev/console")
    assert 0

def test_breaks_before(breaks_before): ...

def test_breaks_later(breaks_later): ...

@pytest.mark.vm_state("broken")
def test_state(vm): ...

@pytest.mark.vm(screen=True)
def test_screen(vm):
    assert 0

def test_hangs(vm):
    vm.write_text("/bin/journalctl", "#!/bin/sh\\nsleep 1000\\n", mode=0o755)  # asked for its journal, it hangs
    assert 0

def test_stands_still(vm):
    os.kill(vm._backend.domain.pid(), signal.SIGSTOP)
    vm.run("true")
"""
REPORTS = ("--junitxml=junit.xml", "--html=report.html", "--self-contained-html", "--alluredir=allure")


def attached(directory: Path) -> dict[str, list[str]]:
    """The names of the attachments in Allure's results, by test."""
    results = [json.loads(path.read_text()) for path in directory.glob("*-result.json")]
    return {result["name"]: [each["name"] for each in result.get("attachments", [])] for result in results}


def test_every_failure_has_its_evidence_and_nothing_else_has(
    project: pytest.Pytester, light: tuple[str, ...]
) -> None:
    project.makeconftest(CONFTEST)
    project.makepyfile(test_it=TESTS)
    place = project.mkdir("vmsnap-artifacts") / "test_it.py-test_hangs"
    place.mkdir()
    (place / "mine").write_text("somebody's own")
    options = (*light, "--vmsnap-timeout-factor=1.5", "-p", "no:cacheprovider", *REPORTS)
    result = project.runpytest_subprocess("-p", "pytest_html", "-p", "allure_pytest", *options)
    result.assert_outcomes(passed=3, failed=5, errors=3)

    kept = project.path / "vmsnap-artifacts"
    by_test = {path.name: {each.name for each in path.iterdir()} for path in kept.iterdir() if path.is_dir()}
    usual = {f"vm-{name}" for name in ("commands.txt", "journal.txt", "qemu.log", "domain.xml")}
    index = {"evidence.json"}
    assert set(by_test) == {
        "test_it.py-test_fails",
        "test_it.py-test_shared_second",
        "test_it.py-test_breaks_before",
        "test_it.py-test_breaks_later",
        "test_it.py-test_state",
        "test_it.py-test_screen",
        next(name for name in by_test if name.startswith("test_it.py-test_hangs-")),
        "test_it.py-test_hangs",
        "test_it.py-test_stands_still",
    }
    others = {name.replace("vm-", "other-") for name in (*usual, "vm-console.txt")}
    assert by_test["test_it.py-test_fails"] == usual | others | index | {"vm-console.txt"}
    assert by_test["test_it.py-test_hangs"] == {"mine"}  # it was there before
    assert by_test["test_it.py-test_screen"] >= {"vm-screen.png"}
    assert (kept / "test_it.py-test_screen" / "vm-screen.png").read_bytes().startswith(b"\x89PNG")

    fails = kept / "test_it.py-test_fails"
    assert "words of the call" in (fails / "vm-console.txt").read_text()
    assert (fails / "other-console.txt").read_text().strip() == "words of the other"
    commands = (fails / "vm-commands.txt").read_text()
    assert "    stdout: spoken\n" in commands
    assert "status 1 (3 times)  false\n" in commands
    assert "words to the kernel" in (fails / "vm-journal.txt").read_text()
    assert "qemu-system" in (fails / "vm-qemu.log").read_text()
    assert ElementTree.parse(fails / "vm-domain.xml").getroot().tag == "domain"
    shared = kept / "test_it.py-test_shared_second"
    assert (shared / "vm_module-console.txt").read_text().strip() == "words of the second"
    assert "words of the set-up" in (kept / "test_it.py-test_breaks_before" / "vm-console.txt").read_text()
    assert "words of the teardown" in (kept / "test_it.py-test_breaks_later" / "vm-console.txt").read_text()
    state = kept / "test_it.py-test_state"
    assert "words of the state" in (state / "state-broken-console.txt").read_text()
    assert "stderr: the reason" in (state / "state-broken-commands.txt").read_text()

    result.stdout.fnmatch_lines_random(
        [
            "*Console of vmsnap-* during this test*",
            "*Last commands in vmsnap-*",
            "*vmsnap-artifacts/test_it.py-test_fails: *vm-console.txt*",
            "journal.txt of vm: not collected within 7.5 s",
        ]
    )
    result.stdout.no_fnmatch_line("*words of the first")

    cases = {case.get("name"): case for case in ElementTree.parse(project.path / "junit.xml").iter("testcase")}
    properties = {each.get("name"): each.get("value") for each in cases["test_fails"].iter("property")}
    assert properties["vmsnap_artifacts"] == "vmsnap-artifacts/test_it.py-test_fails"
    assert "vmsnap_artifacts" in {each.get("name") for each in cases["test_breaks_later"].iter("property")}
    html = (project.path / "report.html").read_text()
    assert "words of the call" in html
    assert html.count("screen.png of vm") == 1
    names = attached(project.path / "allure")
    assert {"console.txt of vm", "domain.xml of vm"} <= set(names["test_fails"])
    assert "screen.png of vm" in names["test_screen"]
    assert not names["test_passes"]


def test_workers_keep_evidence_too_of_all_tests_or_of_none_as_is_asked(
    project: pytest.Pytester, light: tuple[str, ...]
) -> None:
    project.makepyfile(
        test_it="""
        def test_passes(vm):
            vm.succeed("echo words of one >/dev/console")
            vm.wait_for_console_text("words of one")

        def test_fails(vm):
            vm.succeed("echo words of two >/dev/console")
            vm.wait_for_console_text("words of two")
            assert 0
        """
    )
    options = (*light, "-p", "no:cacheprovider", "--junitxml=junit.xml")
    result = project.runpytest_subprocess("-n2", "--vmsnap-artifacts=all", *options)
    result.assert_outcomes(passed=1, failed=1)
    kept = project.path / "vmsnap-artifacts"
    assert "words of one" in (kept / "test_it.py-test_passes" / "vm-console.txt").read_text()
    assert "words of two" in (kept / "test_it.py-test_fails" / "vm-console.txt").read_text()
    assert result.stdout.str().count("- Artifacts of vmsnap -") == 1
    assert (project.path / "junit.xml").read_text().count('"vmsnap_artifacts"') == 2
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("*.*") if path.is_file()}

    result = project.runpytest_subprocess("--vmsnap-artifacts=none", "-k", "fails", *options)
    result.stdout.fnmatch_lines(["*Console of vmsnap-*", "words of two"])
    elsewhere = project.path / "elsewhere"
    result = project.runpytest_subprocess(f"--vmsnap-artifacts-dir={elsewhere}", "-k", "fails", *options)
    assert (elsewhere / "test_it.py-test_fails" / "vm-console.txt").exists()
    assert {path: path.stat().st_mtime_ns for path in before} == before
