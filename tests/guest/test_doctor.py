"""`vmsnap doctor` on a host that runs machines: it finds what a run finds."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_vmsnap.session import VmsnapSession


def processes_of(session: int) -> list[str]:
    """The processes of a session that have not ended (proc(5), fields 3 and 6 of stat)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            words = path.read_text().rpartition(")")[2].split()
            if int(words[3]) == session and words[0] != "Z":
                found.append(path.read_text())
    return found


def asked(*arguments: str) -> tuple[int, str, int]:
    """Status and output of the doctor, and its process id; it says nothing on stderr, and leaves no process."""
    command = [Path(sys.executable).with_name("vmsnap"), "doctor", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        output, errors = process.communicate()
    assert errors == ""
    assert processes_of(process.pid) == []
    return process.returncode, output, process.pid


@pytest.mark.smoke
def test_the_doctor_finds_what_a_run_finds_and_leaves_nothing(
    vmsnap: VmsnapSession, project: pytest.Pytester
) -> None:
    facts = vmsnap.facts
    status, output, one = asked("--json")
    told = json.loads(output)
    findings = {finding["name"]: finding for finding in told["findings"]}
    failed = [finding for finding in told["findings"] if finding["status"] == "failure"]
    assert (status, failed) == (0, [])
    assert findings["uri"]["found"].startswith(f"{facts.uri.uri} (")
    assert findings["libvirt"]["found"] == facts.libvirt_version
    assert findings["qemu"]["found"] == f"{facts.qemu_version} ({facts.emulator})"
    assert "x-ignore-shared" in findings["qemu-snapshots"]["found"]
    assert findings["accelerator"]["found"].startswith(facts.accelerator.name)
    # the details of a probe that fails depend on how busy the host is
    assert facts.accelerator.reason.partition(": ")[0] in findings["accelerator"]["found"]
    is_well = facts.accelerator.name == "kvm" or facts.accelerator.reason == "requested"
    assert (findings["accelerator"]["status"] == "ok") is is_well
    assert findings["store"]["found"].startswith(f"{vmsnap.store.path}: ")
    status, shown, two = asked()
    assert status == 0
    assert shown.splitlines()[-1].startswith("Machines can run here")
    begun = [json.loads(path.read_text())["pid"] for path in vmsnap.store.runs.glob("*/run.json")]
    assert not {one, two} & set(begun)
