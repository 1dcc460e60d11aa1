"""The measurements, as tests of the plugin's own; `python tests/bench/snapshot` runs them."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.guest import Request

from ..revert.conftest import FILL, USED_MIB
from ..revert.peers import peer, timed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap import Machine
    from pytest_vmsnap.model import MachineSpec
    from pytest_vmsnap.session import VmsnapSession

TIMES = int(os.environ["VMSNAP_BENCH_TIMES"])
TARGET = Path(os.environ["VMSNAP_BENCH_RESULTS"])
SLOW = 3  # times, of what takes seconds
LOOPS = 50
# what a test has done since its machine was clean: the same for all
CHANGE = "head -c 10000000 /dev/urandom >/dev/shm/changed; head -c 10000000 /dev/urandom >/root/changed"

found: dict[str, list[float]] = {}
notes: dict[str, Any] = {}


@pytest.fixture(scope="session", autouse=True)
def results(vmsnap: VmsnapSession) -> Iterator[None]:
    yield
    facts = vmsnap.facts
    versions = {"qemu": facts.qemu_version, "libvirt": facts.libvirt_version, "accel": facts.accelerator.name}
    TARGET.write_text(json.dumps({"found": found, "notes": notes, "versions": versions}))


def add(name: str, since: float) -> None:
    found.setdefault(name, []).append(time.monotonic() - since)


def kept_mib(path: Path) -> float:
    """MiB that the files of a directory take on the disk."""
    return sum(file.stat().st_blocks for file in path.rglob("*") if file.is_file()) / 2048


def until_ready(vmsnap: VmsnapSession) -> None:
    assert vmsnap._engine
    standbys = vmsnap._engine.pool._standbys
    while standbys._on_the_way:
        time.sleep(0.05)


@pytest.mark.parametrize("number", range(TIMES))
def test_snapshot_and_back(
    vm: Machine, vmsnap: VmsnapSession, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    vm.succeed(CHANGE)
    until_ready(vmsnap)
    caplog.set_level("INFO", logger="pytest_vmsnap.fork")
    started = time.monotonic()
    vm.snapshot("here")
    add("snapshot", started)
    (still,) = re.findall(r"stood still for ([\d.]+) s", caplog.text)
    found.setdefault("snapshot: standing still", []).append(float(still))
    assert vm._allocation
    moment = vm._savepoints["here"]
    notes.setdefault("kept", []).append(kept_mib(moment.snapshot.directory))
    until_ready(vmsnap)
    time.sleep(0.5)
    started = time.monotonic()
    vm.revert("here")
    vm.run("true")
    add("revert, made ahead", started)
    notes.setdefault("kept with its memory file", []).append(kept_mib(moment.snapshot.directory))


@pytest.mark.parametrize("number", range(TIMES))
def test_back_without_anything_ahead(vm: Machine, vmsnap: VmsnapSession, number: int) -> None:
    assert vmsnap._engine
    standbys = vmsnap._engine.pool._standbys
    most, standbys._most = standbys._most, 0
    standbys.expect([])
    until_ready(vmsnap)
    time.sleep(2)  # what was discarded has ended
    try:
        vm.succeed(CHANGE)
        vm.snapshot("here")
        started = time.monotonic()
        vm.revert("here")
        vm.run("true")
        add("revert, nothing ahead, first time", started)
        time.sleep(2)
        started = time.monotonic()
        vm.revert("here")
        vm.run("true")
        add("revert, nothing ahead", started)
    finally:
        standbys._most = most


def test_rollbacks(vm: Machine) -> None:
    vm.succeed(CHANGE)
    started = time.monotonic()
    for _ in range(LOOPS):
        with vm.rollback():
            vm.run("true")
    notes["rollbacks"] = time.monotonic() - started
    started = time.monotonic()
    for _ in range(LOOPS // 5):
        with vm.rollback():
            vm.run("true")
        vm.run("true")  # so that each begins elsewhere
    notes["rollbacks from elsewhere"] = (time.monotonic() - started) * 5


def test_peers(vmsnap: VmsnapSession, vm_spec: MachineSpec) -> None:
    spec = vm_spec.replace(cpus=vm_spec.cpus or vmsnap.facts.cpus)
    with peer(vmsnap, spec, f"{FILL}; {CHANGE}" if USED_MIB else CHANGE) as machine:

        def shell() -> None:
            machine.channel.close()
            machine.channel.open(timeout=600)
            machine.channel.run(Request(text="true"), timeout=600)

        found["savevm"] = timed(machine.savevm, lambda: None, SLOW)
        found["loadvm"] = timed(machine.loadvm, shell, SLOW)
        found["migration to a file"] = timed(machine.save, lambda: None, 1)
        found["its load"] = timed(machine.restore, shell, SLOW)
