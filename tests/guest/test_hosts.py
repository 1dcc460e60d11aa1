"""Several hosts: pytest-xdist's `ssh=` gateways, each host with a store of its own, filled from one registry.

The hosts are two SSH servers on addresses of the loopback interface; each gives its sessions another store.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import image
from pytest_vmsnap.progress import Progress, silent
from pytest_vmsnap.states import image_request
from pytest_vmsnap.store import Store

from .. import plain
from ..registry_server import serving
from ..ssh_hosts import ssh_host
from .stores import copy_tree

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.session import VmsnapSession

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
            f"[pytest]\naddopts = {plain.ADDOPTS} -p no:cacheprovider\nvmsnap_registry = {server.address}\n"
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
            ssh_host("127.0.0.2", scratch / "two", project, environment) as two,
            ssh_host("127.0.0.3", scratch / "three", project, environment) as three,
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
