"""`vmsnap doctor` where it is needed most: on hosts that lack what machines need."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.errors import DOCTOR
from pytest_vmsnap.host.install_hints import lines_for, of_this_host
from pytest_vmsnap.host.libvirt import BINDING, INSTALL
from pytest_vmsnap.image.debian.tools import INSTALL as IMAGE_TOOLS

if TYPE_CHECKING:
    from tests.plugin.conftest import Bare

NAMES = [
    *("python", "libvirt-python", "uri", "daemon", "libvirt"),
    *("qemu", "qemu-snapshots", "qemu-network", "qemu-img", "firmware"),
    *("kvm-device", "kvm-cpu", "kvm-permission", "accelerator"),
    *("memory", "store", "reflink", "system-store", "image", "image-tools"),
]


def doctor(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    result = project.run(sys.executable, Path(sys.executable).with_name("vmsnap"), "doctor", *arguments)
    assert "Traceback" not in str(result.stdout) + str(result.stderr)
    return result


def found(project: pytest.Pytester) -> dict[str, dict[str, Any]]:
    """The findings by name, of ``--json``."""
    result = doctor(project, "--json")
    told = json.loads(str(result.stdout))
    assert list(told) == ["status", "findings"]
    assert result.ret == (1 if told["status"] == "failure" else 0)
    for finding in told["findings"]:
        assert list(finding) == ["name", "status", "found", "advice"]
        assert finding["status"] in ("ok", "warning", "failure")
    return {finding["name"]: finding for finding in told["findings"]}


def indented(advice: str) -> list[str]:
    """The lines of an advice that are commands, as they are shown on this host."""
    lines = lines_for(advice, of_this_host()).splitlines()
    return [f"         {line}" for line in lines if line.startswith(" ")]


@pytest.mark.usefixtures("bare")
def test_without_libvirts_binding_it_says_how_to_get_it_and_goes_on(project: pytest.Pytester) -> None:
    result = doctor(project)
    assert result.ret == 1
    lines = result.outlines
    marked = [line.split()[:2] for line in lines if line and not line.startswith(" ")]
    assert [name for _, name in marked[:-1]] == NAMES
    assert ["FAILURE", "libvirt-python"] in marked
    for line in indented(BINDING):
        assert lines.count(line) == 1
    assert any(line.endswith("not checked: no libvirt-python") for line in lines)
    assert lines[-1] == "No machine can run here until the failures above are fixed."


@pytest.mark.usefixtures("bare")
def test_json_is_all_there_is_on_stdout_whatever_a_conftest_prints(project: pytest.Pytester) -> None:
    project.makeconftest("import warnings\nprint('words of a conftest')\nwarnings.warn('others', stacklevel=1)")
    project.makeini("[pytest]\nfilterwarnings = error\n")
    findings = found(project)
    assert list(findings) == NAMES
    assert findings["libvirt-python"]["status"] == "failure"
    assert findings["libvirt-python"]["advice"] == lines_for(BINDING, of_this_host())
    assert findings["daemon"] == {
        "name": "daemon",
        "status": "warning",
        "found": "not checked: no libvirt-python",
        "advice": "",
    }
    assert findings["memory"]["status"] == "ok"


@pytest.mark.usefixtures("bare")
def test_on_a_host_without_any_program_everything_is_looked_at_all_the_same(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(project.mkdir("empty")))
    findings = found(project)
    assert list(findings) == NAMES
    advice = lines_for(INSTALL, of_this_host())
    for name in ("qemu", "qemu-img"):
        assert (findings[name]["status"], findings[name]["advice"]) == ("failure", advice)
    for name in ("qemu-snapshots", "qemu-network", "accelerator"):
        assert findings[name]["found"] == "not checked: no QEMU"
    assert findings["image-tools"]["advice"] == lines_for(IMAGE_TOOLS, of_this_host())
    assert findings["image"]["status"] == "ok"


def test_what_is_configured_is_read_as_pytest_reads_it(
    project: pytest.Pytester, bare: Bare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMSNAP_ACCEL", "tcg")
    project.makeini(
        "[pytest]\nvmsnap_uri = qemu+ssh://elsewhere/system\nvmsnap_image = none\nvmsnap_kernel = vmlinuz\n"
        "vmsnap_store = kept\nvmsnap_memory = 300\n"
    )
    findings = found(project)
    assert findings["uri"]["status"] == "failure"
    assert "libvirt must run on this host" in findings["uri"]["found"]
    assert findings["daemon"]["found"] == "not checked: no URI"
    assert findings["kvm-device"]["found"] == "not checked: vmsnap_accel=tcg"
    assert findings["image"]["found"].startswith("none: ")
    assert findings["store"]["found"].startswith(f"{project.path}/kept: ")
    assert "machines of 300 MiB" in findings["memory"]["found"]
    assert not (project.path / "kept").exists()
    assert bare.what_was_made() == []


@pytest.mark.usefixtures("bare")
def test_pytests_errors_about_the_host_point_to_it_once(project: pytest.Pytester) -> None:
    project.makepyfile("def test_one(vm): pass\ndef test_two(vm): pass\n")
    result = project.runpytest_subprocess()
    header, _, errors = str(result.stdout).partition("= ERRORS =")
    assert header.count(DOCTOR) == 1
    first, second = errors.partition("short test summary")[0].split("ERROR at setup of ")[1:]
    assert first.count(DOCTOR) == 1
    assert DOCTOR not in second


@pytest.mark.usefixtures("bare")
def test_pytests_errors_about_something_else_do_not_point_to_it(project: pytest.Pytester) -> None:
    project.makepyfile("def test_one(vm): pass\n")
    result = project.runpytest_subprocess("--vmsnap-store=/proc/none")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the store /proc/none cannot be used*"])
    assert DOCTOR not in str(result.stdout)
