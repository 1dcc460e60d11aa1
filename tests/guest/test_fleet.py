"""Two stores and one registry: what the first pushes, the second runs on, without an image build or a boot."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ..registry_server import PASSWORD, RegistryServer, auth_file, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_vmsnap import MachineSpec

CONFTEST = """
from pytest_vmsnap import state

@state
def one(vm):
    vm.succeed("echo 1 >/root/one; echo in-memory >/dev/shm/one; sleep 77777 >/dev/null 2>&1 &")

@state(parent=one)
def two(vm):
    vm.succeed("echo 2 >/root/two")
"""
TESTS = """
import pytest

@pytest.mark.vm_state("two")
def test_two(vm):
    assert vm.succeed("cat /root/one /root/two /dev/shm/one") == "1\\n2\\nin-memory\\n"
    vm.succeed("pgrep -f 'sleep 77777'")

def test_base(vm):
    vm.fail("test -e /root/one")
"""


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with serving(tmp_path_factory.mktemp("registry"), tls=True, login=True) as found:
        yield found


@pytest.fixture
def suite(
    project: pytest.Pytester,
    server: RegistryServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    light: tuple[str, ...],
) -> pytest.Pytester:
    project.makeconftest(CONFTEST)
    project.makepyfile(test_it=TESTS)
    project.makeini("[pytest]\naddopts = " + " ".join(light))
    monkeypatch.setenv("VMSNAP_REGISTRY", server.address)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.certificate))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(auth_file(tmp_path / "auth.json", server.host)))
    return project


def run(project: pytest.Pytester, store: Path, *arguments: str) -> str:
    """Run the suite with a store of its own, and return what it printed."""
    result = project.run(sys.executable, "-m", "pytest", f"--vmsnap-store={store}", *arguments)
    result.assert_outcomes(passed=2)
    said = result.stdout.str() + result.stderr.str()
    assert PASSWORD not in said
    return said


def vmsnap(project: pytest.Pytester, store: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest_vmsnap.cli", "--store", str(store), *arguments]
    return subprocess.run(command, cwd=project.path, capture_output=True, text=True, check=False)


def test_what_one_store_pushes_another_runs_on(
    suite: pytest.Pytester, tmp_path: Path, vm_spec: MachineSpec
) -> None:
    first = run(suite, tmp_path / "first", "--vmsnap-push")
    assert "booting" in first
    second = run(suite, tmp_path / "second")
    assert "booting" not in second
    assert "preparing" not in second
    assert "2 states from the registry" in second
    third = run(suite, tmp_path / "second")
    assert "2 states from the store" in third
    assert vmsnap(suite, tmp_path / "second", "verify").stdout.endswith("no damage found\n")


def test_states_are_pushed_pulled_and_locked_by_hand(suite: pytest.Pytester, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run(suite, first)
    pushed = vmsnap(suite, first, "push", "two")
    assert pushed.returncode == 0, pushed.stderr
    assert "MB sent" in pushed.stdout
    assert "it was there already" in vmsnap(suite, first, "push", "two").stdout
    assert "no state nothing" in vmsnap(suite, second, "pull", "nothing").stderr
    pulled = vmsnap(suite, second, "pull", "two")
    assert pulled.returncode == 0, pulled.stderr
    assert "MB received" in pulled.stdout
    assert "booting" not in run(suite, second)
    assert "in the registry, two@" in vmsnap(suite, second, "states", "--why", "two").stdout

    locked = vmsnap(suite, first, "lock")
    assert locked.returncode == 0, locked.stderr
    third = tmp_path / "third"
    assert "booting" not in run(suite, third)
    lock = suite.path / "vmsnap.lock"
    lock.write_text(lock.read_text().replace('"sha256:', '"sha256:0000').replace("0000", "", 0)[:-6] + '"\n')
    wrong = vmsnap(suite, tmp_path / "fourth", "pull", "two")
    assert wrong.returncode == 1
    assert "vmsnap.lock" in wrong.stderr


def test_what_does_not_fit_is_said_with_the_part_that_differs(suite: pytest.Pytester, tmp_path: Path) -> None:
    run(suite, tmp_path / "first", "--vmsnap-push")
    suite.makeconftest(CONFTEST.replace("echo 2", "echo  2"))
    said = run(suite, tmp_path / "second")
    assert "the registry's state two does not fit: two.source" in said
    assert "booting" not in said  # its parent fits
    why = vmsnap(suite, tmp_path / "second", "states", "--why", "two").stdout
    assert "does not fit" in why
    assert "two.source" in why
    assert "fits" in why


def test_a_disk_that_leads_outside_is_refused(
    suite: pytest.Pytester, tmp_path: Path, server: RegistryServer
) -> None:
    """A state whose disk names a file of the host, as somebody who may push could make one."""
    first = tmp_path / "first"
    run(suite, first)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 1000)
    states = {
        json.loads((path / "meta.json").read_text())["origin"]["name"]: path
        for path in (first / "states").iterdir()
    }
    meta_path = states["one"] / "meta.json"
    meta = json.loads(meta_path.read_text())
    meta["image"]["initrd"] = str(secret)
    meta_path.chmod(0o600)
    meta_path.write_text(json.dumps(meta))
    pushed = vmsnap(suite, first, "push", "one")
    assert pushed.returncode == 0, pushed.stderr
    said = run(suite, tmp_path / "second")
    assert "refers to a file outside of what it was built on" in said
    assert "the state one cannot be pulled, and will be built" in said
