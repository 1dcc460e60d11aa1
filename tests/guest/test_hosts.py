"""Several hosts: pytest-xdist's `ssh=` gateways, each host with a store of its own, filled from one registry.

The hosts are two SSH servers on addresses of the loopback interface; each gives its sessions another store.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import image
from pytest_vmsnap.progress import Progress, silent
from pytest_vmsnap.states import image_request
from pytest_vmsnap.store import Store

from ..registry_server import free_port, serving
from .stores import copy_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_vmsnap.session import VmsnapSession

SSHD = "/usr/sbin/sshd"
START_SECONDS = 60.0
CONFTEST = """
from pytest_vmsnap import state

@state
def one(vm):
    vm.succeed("echo 1 >/root/one")
"""
TESTS = """
import os
import pytest

@pytest.mark.vm_state("one")
@pytest.mark.parametrize("number", range(6))
def test_one(vm, number, record_property):
    assert vm.succeed("cat /root/one") == "1\\n"
    vm.succeed("echo 2 >/root/one; sleep 1")
    record_property("store", os.environ["VMSNAP_STORE"])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOverSsh:
    """A host at `address`, with its `store`; `gateway` is how pytest-xdist reaches it."""

    address: str
    store: Path
    gateway: str


@contextmanager
def host(address: str, directory: Path, project: Path, environment: dict[str, str]) -> Iterator[HostOverSsh]:
    """An SSH server of the current user at `address`; its sessions have the variables in `environment`."""
    directory.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
    port = free_port()
    variables = environment | {"VMSNAP_STORE": str(directory / "store")}
    lines = [
        f"ListenAddress {address}:{port}",
        f"HostKey {directory / 'host'}",
        f"AuthorizedKeysFile {directory / 'user.pub'}",
        "PermitRootLogin prohibit-password",
        *("PidFile none", "StrictModes no", "UsePAM no"),
        f"SetEnv {' '.join(f'{name}={text}' for name, text in variables.items())}",
    ]
    (directory / "config").write_text("\n".join(lines) + "\n")
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # noqa: PTH103 - as sshd(8) asks for it
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", directory / "config"], stderr=subprocess.DEVNULL)
    try:
        wait_for_port(address, port, process)
        known = f"-o UserKnownHostsFile={directory / 'known'} -o StrictHostKeyChecking=no -o LogLevel=ERROR"
        login = f"-p {port} -i {directory / 'user'} {known} {getpass.getuser()}@{address}"
        gateway = f"ssh={login}//python={sys.executable}//chdir={project}"
        yield HostOverSsh(address=address, store=directory / "store", gateway=gateway)
    finally:
        process.terminate()
        process.wait()


def wait_for_port(address: str, port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((address, port), timeout=5).close()
        except OSError:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        else:
            return


@pytest.mark.thorough
def test_a_suite_runs_on_two_hosts_that_share_a_registry(
    vmsnap: VmsnapSession, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scratch = tmp_path_factory.mktemp("hosts")
    project = scratch / "project"
    project.mkdir()
    (scratch / "registry").mkdir()
    (project / "conftest.py").write_text(CONFTEST)
    (project / "test_it.py").write_text(TESTS)
    with serving(scratch / "registry") as server:
        (project / "pytest.ini").write_text(
            f"[pytest]\naddopts = -p no:randomly -p no:cacheprovider\nvmsnap_registry = {server.address}\n"
        )
        environment = {"VMSNAP_URI": vmsnap.facts.uri.uri}
        first = scratch / "first"
        Store(first, progress=silent())
        built = image.provide(
            image_request(vmsnap.settings.spec(), root=vmsnap.settings.root),
            store=vmsnap.store,
            progress=Progress(print),
        )
        assert built.disk
        copy_tree(built.disk.parent, first / "images" / built.disk.parent.name)
        said = run(project, environment | {"VMSNAP_STORE": str(first)}, "--vmsnap-push")
        assert "6 passed" in said, said

        with (
            host("127.0.0.2", scratch / "two", project, environment) as two,
            host("127.0.0.3", scratch / "three", project, environment) as three,
        ):
            gateways = ["--tx", two.gateway, "--tx", three.gateway, "--dist", "load"]
            said = run(project, {}, *gateways, "--junit-xml", str(scratch / "junit.xml"))
            assert "6 passed" in said, said
            assert "booting" not in said
            assert "from the registry" in said
            used = set(re.findall(r'name="store" value="([^"]+)"', (scratch / "junit.xml").read_text()))
            assert used == {str(two.store), str(three.store)}
            for each in (two, three):
                assert list((each.store / "runs").iterdir()) == []


def run(project: Path, environment: dict[str, str], *arguments: str) -> str:
    plain = {name: text for name, text in os.environ.items() if not name.startswith("VMSNAP_")}
    command = [sys.executable, "-m", "pytest", *arguments]
    done = subprocess.run(
        command, cwd=project, env=plain | environment, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr
