"""Clusters as states: built once, kept, opened, exported; what is left of a run that was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .. import plain

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = pytest.mark.thorough

CONFTEST = """
from pathlib import Path

from pytest_vmsnap import state

def note(what):
    with open(Path(__file__).parent / "built", "a") as file:
        file.write(f"{what}\\n")

def pytest_vmsnap_prepare_cluster(vm_cluster, spec):
    note("joined")
    assert [member.name for member in spec.members] == list(vm_cluster)
    for machine in vm_cluster.values():
        machine.succeed("echo of the hook >/prepared")

@state
def tool(vm):
    note("tool")
    vm.succeed("echo of the tool >/tool")

@state(machines={"primary": {"state": "tool"}, "standby": {"state": "tool", "memory": 192}, "third": {}})
def replicated(cluster):
    note("replicated")
    cluster["primary"].succeed("echo of the primary >/made")
    cluster["standby"].succeed("cat /tool >/made")
    cluster.network.delay(0.01, "third")

@state(parent=replicated)
def promoted(vm_cluster):
    note("promoted")
    vm_cluster["standby"].succeed("echo promoted >>/made")
"""
TESTS = """
import pytest

@pytest.mark.vm_state("replicated")
def test_replicated(vm_cluster):
    assert list(vm_cluster) == ["primary", "standby", "third"]
    assert [machine.succeed("cat /made 2>/dev/null; true") for machine in vm_cluster.values()] == [
        "of the primary\\n", "of the tool\\n", ""
    ]
    assert [machine.succeed("cat /prepared") for machine in vm_cluster.values()] == ["of the hook\\n"] * 3
    assert len(vm_cluster.network.faults) == 1
    vm_cluster["primary"].succeed("rm /made")

@pytest.mark.vm_state("promoted")
@pytest.mark.parametrize("turn", [1, 2])
def test_promoted(vm_cluster, turn):
    assert vm_cluster["standby"].succeed("cat /made") == "of the tool\\npromoted\\n"
    vm_cluster["standby"].succeed("echo x >/made")
"""
FAILS = """
import pytest

@pytest.mark.vm_state("replicated")
def test_fails(vm_cluster):
    vm_cluster.snapshot("x")
    vm_cluster.revert("x")
    vm_cluster["third"].succeed("echo in memory >/dev/mine")
    vm_cluster.network.cut("primary")
    assert 0, "the reason"
"""


@pytest.fixture
def project_of_clusters(
    project: pytest.Pytester,
    own_store: Path,
    light: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> pytest.Pytester:
    """A project with states of clusters, over an empty store of its own."""
    options = (*light, "-pno:cacheprovider", *plain.OPTIONS)
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(f"'{option}'" for option in options))
    project.makeconftest(CONFTEST)
    return project


def built(project: pytest.Pytester) -> list[str]:
    notes = project.path / "built"
    found = notes.read_text().split() if notes.exists() else []
    notes.unlink(missing_ok=True)
    return found


def stored() -> int:
    """How many entries of states there are."""
    return len(list((Path(os.environ["VMSNAP_STORE"]) / "states").iterdir()))


def test_a_state_of_a_cluster_is_built_once_and_is_the_parent_of_others(
    project_of_clusters: pytest.Pytester, command: Path
) -> None:
    project = project_of_clusters
    project.makepyfile(test_it=TESTS)
    project.runpytest_subprocess().assert_outcomes(passed=3)
    assert sorted(set(built(project))) == ["joined", "promoted", "replicated", "tool"]
    project.runpytest_subprocess("-n2").assert_outcomes(passed=3)
    assert built(project) == []
    shown = project.run(command, "states")
    shown.stdout.fnmatch_lines(
        ["  replicated@* cluster of primary, standby, third *", "    promoted@* cluster of *"]
    )
    shown.stdout.no_fnmatch_line("*replicated/*")
    entries = stored()
    project.runpytest_subprocess("--vmsnap-refresh-state=tool").assert_outcomes(passed=3)
    assert sorted(set(built(project))) == ["joined", "promoted", "replicated", "tool"]
    assert stored() == entries  # none is left of the old ones
    assert project.run(command, "prune", "replicated").ret == 0
    assert stored() == entries - 8  # it and its child, with three machines each


def test_a_failed_cluster_is_shown_kept_and_opened(project_of_clusters: pytest.Pytester, command: Path) -> None:
    project = project_of_clusters
    project.makepyfile(test_it=FAILS)
    result = project.runpytest_subprocess("--vmsnap-keep=failed")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["fault: delay of the saved state", "fault: cut('primary')", "the last frames: *pcapng"]
    )
    result.stdout.fnmatch_lines(["vmsnap open test_it.py::test_fails/primary  # or /standby, /third"])
    (directory,) = (project.path / "vmsnap-artifacts").glob("*test_fails*")
    names = {path.name for path in directory.iterdir()}
    assert {
        "primary-domain.xml",
        "standby-domain.xml",
        "third-domain.xml",
        "vm_cluster-network.pcapng",
    } <= names
    opened = project.run(command, "open", "test_fails/third", "--exec", "cat /dev/mine; hostname")
    assert opened.outlines[-2:] == ["in memory", "third"]
    assert project.run(command, "open", "test_fails", "--exec", "hostname").outlines[-1] == "primary"
    refused = project.run(command, "open", "test_fails/fourth", "--exec", "true")
    refused.stderr.fnmatch_lines(["*has no machine 'fourth'", "its machines are primary, standby, third"])


def test_a_cluster_is_taken_elsewhere_as_one_file(
    project_of_clusters: pytest.Pytester, command: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_of_clusters
    project.makepyfile(test_it=TESTS)
    project.runpytest_subprocess("-k", "replicated").assert_outcomes(passed=1)
    assert project.run(command, "export", "replicated", "cluster.vmsnap").ret == 0
    monkeypatch.setenv("VMSNAP_STORE", f"{os.environ['VMSNAP_STORE']}-elsewhere")
    assert project.run(command, "import", "cluster.vmsnap").ret == 0
    built(project)
    project.runpytest_subprocess("-k", "replicated").assert_outcomes(passed=1)
    assert built(project) == []
    opened = project.run(command, "open", "replicated/standby", "--exec", "cat /made")
    assert opened.outlines[-1] == "of the tool"


def test_a_run_that_is_killed_leaves_neither_machine_nor_switch(
    project_of_clusters: pytest.Pytester,
    runner: list[str],
    qemus: Callable[[str], list[int]],
    wait_for: Callable[..., None],
) -> None:
    project = project_of_clusters
    project.makepyfile(
        test_it="""
        import json, time
        from pathlib import Path
        import pytest

        @pytest.mark.vm_state("replicated")
        def test_it(vm_cluster, vmsnap):
            found = {"switch": vm_cluster._lease.switch.pid, "prefix": vmsnap._engine.host.run.prefix}
            Path("draft").write_text(json.dumps(found))
            Path("draft").rename("found")
            time.sleep(600)
        """
    )
    process = subprocess.Popen(
        [*runner, "-q"], cwd=project.path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for((project.path / "found").exists, "the test's begin")
    found = json.loads((project.path / "found").read_text())
    assert qemus(found["prefix"])
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not qemus(found["prefix"]), "the machines' end")
    wait_for(lambda: is_gone(found["switch"]), "the switch's end")


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("machines", "words"),
    [
        ("a={}, b={'memory': 1 << 30}", "*machines need * MiB of memory, and this host has * MiB*"),
        ("a={}, b={'state': 'bare'}", "*the guest of b shows no card on the cluster's network*"),
    ],
)
def test_machines_that_the_host_or_the_guest_cannot_have_are_refused(
    project_of_clusters: pytest.Pytester, machines: str, words: str
) -> None:
    project_of_clusters.makepyfile(
        test_it=f"""
        import pytest
        from pytest_vmsnap import state

        @state
        def bare(vm):
            vm.succeed("rmmod virtio_net")

        @pytest.mark.vm_cluster({machines})
        def test_it(vm_cluster): ...
        """
    )
    result = project_of_clusters.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([words])
