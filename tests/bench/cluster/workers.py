"""A suite of 20 tests over a state of a cluster, on two workers: its first run and its second."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFTEST = """
from pytest_vmsnap import state

@state
def database(vm):
    vm.succeed("echo 1 >/root/data")

@state(machines={"primary": {"state": database}, "standby": {"state": database}, "client": {}})
def replicated(vm_cluster):
    vm_cluster["standby"].succeed("getent hosts primary >/root/primary")
"""
TESTS = """
import pytest

pytestmark = pytest.mark.vm_state("replicated")

@pytest.mark.parametrize("number", range(20))
def test_each(vm_cluster, number):
    assert vm_cluster["standby"].succeed("cat /root/data /root/primary")
    for machine in vm_cluster.values():
        machine.succeed("test ! -e /root/mine && touch /root/mine")
"""


def two_runs(arguments: list[str]) -> dict[str, str]:
    """What each run took, and what it built, in pytest-vmsnap's own words; the first has no states."""
    found = {}
    with tempfile.TemporaryDirectory() as place:
        project = Path(place)
        (project / "conftest.py").write_text(CONFTEST)
        (project / "test_suite.py").write_text(TESTS)
        command = [sys.executable, "-m", "pytest", "-n2", "-p", "no:cacheprovider", *arguments]
        for name, more in (("first", ["--vmsnap-refresh-state=base"]), ("second", [])):
            started = time.monotonic()
            said = subprocess.run(
                [*command, *more], cwd=project, env=os.environ, check=True, capture_output=True, text=True
            ).stdout
            seconds = time.monotonic() - started
            summary = re.findall(r"^vmsnap: (.*reverts?, .*)$", said, re.MULTILINE)[-1]
            found[f"20 tests of three machines on two workers, {name} run"] = f"{seconds:.0f} s; {summary}"
    return found
