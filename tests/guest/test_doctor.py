"""`vmsnap doctor` on a host that runs machines: it finds what a run finds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.host import processes

if TYPE_CHECKING:
    from pytest_vmsnap.session import VmsnapSession


@pytest.mark.smoke
def test_the_doctor_finds_what_a_run_finds_and_leaves_nothing(
    vmsnap: VmsnapSession, project: pytest.Pytester
) -> None:
    facts, before = vmsnap.facts, set(processes.qemus())
    command = [Path(sys.executable).with_name("vmsnap"), "doctor"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    told = json.loads(done.stdout)
    findings = {finding["name"]: finding for finding in told["findings"]}
    failed = [finding for finding in told["findings"] if finding["status"] == "failure"]
    assert (done.returncode, failed) == (0, [])
    assert findings["uri"]["found"].startswith(f"{facts.uri.uri} (")
    assert findings["libvirt"]["found"] == facts.libvirt_version
    assert findings["qemu"]["found"] == f"{facts.qemu_version} ({facts.emulator})"
    assert "x-ignore-shared" in findings["qemu-snapshots"]["found"]
    assert findings["accelerator"]["found"].startswith(facts.accelerator.name)
    assert findings["accelerator"]["found"].endswith(facts.accelerator.reason)
    assert (findings["accelerator"]["status"] == "ok") is (facts.accelerator.name == "kvm")
    assert findings["store"]["found"].startswith(f"{vmsnap.store.path}: ")
    assert set(processes.qemus()) <= before
    runs = [path for path in vmsnap.store.runs.iterdir() if path.is_dir()]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines()[-1].startswith("Machines can run here")
    assert [path for path in vmsnap.store.runs.iterdir() if path.is_dir()] == runs
