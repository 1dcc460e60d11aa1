"""What root shares on a host, or pushes, an ordinary user's tests run on, without building it."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ... import plain
from ...registry_server import serving
from ...ssh_hosts import ssh_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.session import VmsnapSession

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="one of the two users is root")

USER = "vmsnap-tests"  # made by tests/run, with a copy of the project
CONFTEST = """
from pytest_vmsnap import state

@state
def one(vm):
    vm.succeed("echo 1 >/root/one; echo in-memory >/dev/shm/one")
"""
TESTS = """
import getpass
import pytest

@pytest.mark.vm_state("one")
@pytest.mark.parametrize("number", range(6))
def test_one(vm, number, record_property):
    record_property("user", getpass.getuser())
    assert vm.succeed("cat /root/one /dev/shm/one") == "1\\nin-memory\\n"
    vm.succeed("echo 2 >/root/one; sync")
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that both users can enter; the user owns `run` and `own` in it."""
    found = Path(tempfile.mkdtemp(prefix="vmsnap-", dir="/var/tmp"))
    found.chmod(0o755)
    uid, gid = pwd.getpwnam(USER)[2:4]
    for name in ("run", "own", "project"):
        (found / name).mkdir(mode=0o755)
    for name in ("run", "own"):
        os.chown(found / name, uid, gid)
    (found / "project" / "conftest.py").write_text(CONFTEST)
    (found / "project" / "test_it.py").write_text(TESTS)
    (found / "project" / "pytest.ini").write_text(f"[pytest]\naddopts = {plain.ADDOPTS} -p no:cacheprovider\n")
    yield found
    with suppress(OSError, ValueError):
        os.kill(int((found / "run" / "libvirt" / "libvirtd.pid").read_text()), signal.SIGTERM)
    shutil.rmtree(found)


def test_a_user_runs_on_the_state_that_root_shared(place: Path, vmsnap: VmsnapSession) -> None:
    system = place / "system"
    root = {"VMSNAP_URI": "qemu:///embed", "VMSNAP_STORE": str(vmsnap.store.path)}
    assert "6 passed" in run(place, [sys.executable, "-m", "pytest"], root)  # or another project has built it
    share = [sys.executable, "-c", "import sys; from pytest_vmsnap.cli import main; sys.exit(main())", "share"]
    said = run(place, [*share, "one"], root | {"VMSNAP_SYSTEM_STORE": str(system)})
    assert "shared" in said, said

    python = Path(pwd.getpwnam(USER).pw_dir) / "project" / ".venv" / "bin" / "python"
    theirs = {
        "HOME": pwd.getpwnam(USER).pw_dir,
        "XDG_RUNTIME_DIR": str(place / "run"),
        "VMSNAP_STORE": str(place / "own" / "store"),
        "VMSNAP_SYSTEM_STORE": str(system),
    }
    as_user = ["runuser", "-u", USER, "--", str(python)]
    said = run(place, [*as_user, "-m", "pytest"], theirs)
    assert "1 state from the system store" in said, said
    assert "6 passed" in said
    assert "booting" not in said
    assert "1 state from the store" in run(place, [*as_user, "-m", "pytest"], theirs)
    refused = run(place, [*as_user, *share[1:], "one"], theirs)
    assert f"the store {system} cannot be used: Permission denied" in refused


def test_two_users_run_one_suite_over_ssh(place: Path, vmsnap: VmsnapSession) -> None:
    (place / "registry").mkdir()
    with serving(place / "registry") as server:
        shared = {"VMSNAP_REGISTRY": server.address}
        root = {"VMSNAP_URI": "qemu:///embed", **shared}
        pytest_ = [sys.executable, "-m", "pytest"]
        said = run(place, [*pytest_, "--vmsnap-push"], root | {"VMSNAP_STORE": str(vmsnap.store.path)})
        assert "6 passed" in said, said
        python = str(Path(pwd.getpwnam(USER).pw_dir) / "project" / ".venv" / "bin" / "python")
        theirs = {"XDG_RUNTIME_DIR": str(place / "run"), **shared}
        project = place / "project"
        with (
            ssh_host("127.0.0.2", place / "two", project, root) as two,
            ssh_host("127.0.0.3", place / "three", project, theirs, user=USER, python=python) as three,
        ):
            gateways = ["--tx", two.gateway, "--tx", three.gateway, "--dist", "load"]
            said = run(place, [*pytest_, *gateways, f"--junit-xml={place / 'junit.xml'}"], {})
            assert "6 passed" in said, said
            assert "booting" not in said
            assert "from the registry" in said
            users = set(re.findall(r'name="user" value="([^"]+)"', (place / "junit.xml").read_text()))
            assert users == {"root", USER}
            for each in (two, three):
                assert list((each.store / "runs").iterdir()) == []
            assert (three.store / "states").stat().st_uid == pwd.getpwnam(USER).pw_uid


def run(place: Path, command: list[str], environment: dict[str, str]) -> str:
    """Run `command` in the project, and return what it printed."""
    path = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
    done = subprocess.run(
        command,
        cwd=place / "project",
        env={"HOME": os.environ["HOME"], "PATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr
