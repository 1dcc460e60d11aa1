"""The measurements, as tests of the plugin's own; `python tests/bench/revert` runs them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.guest import Request

from .conftest import FILL, USED_MIB
from .peers import by_agent, peer, timed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap import Machine
    from pytest_vmsnap.model import MachineSpec
    from pytest_vmsnap.session import VmsnapSession

TIMES = int(os.environ["VMSNAP_BENCH_TIMES"])
PEER_TIMES = int(os.environ["VMSNAP_BENCH_PEER_TIMES"])
TARGET = Path(os.environ["VMSNAP_BENCH_RESULTS"])
SLOW = 3  # times, of what takes tens of seconds

found: dict[str, Any] = {}
ended: dict[str, Any] = {"at": 0.0, "name": "", "given up": 0.0, "asked for": 0.0}


@pytest.fixture(scope="session", autouse=True)
def results(vmsnap: VmsnapSession) -> Iterator[None]:
    yield
    facts = vmsnap.facts
    found["versions"] = {
        "qemu": facts.qemu_version,
        "libvirt": facts.libvirt_version,
        "accel": facts.accelerator.name,
    }
    TARGET.write_text(json.dumps(found))


def answered(name: str) -> None:
    """The first command of a test was answered: note how long that took.

    That is the end of the fixture in the test before, its beginning in this one, and the command; and, with
    pytest's own work, all since the end of the test before.
    """
    now = time.monotonic()
    if ended["name"] == name:
        found.setdefault(name, []).append(ended["given up"] + now - ended["asked for"])
        if name == "standby":
            found.setdefault("standby, with pytest's own work", []).append(now - ended["at"])


@pytest.fixture
def before() -> Iterator[None]:
    """Set up just before ``vm``, torn down just behind it."""
    ended["asked for"] = time.monotonic()
    yield
    ended["given up"] += time.monotonic()


@pytest.fixture
def behind(vm: Machine) -> Iterator[None]:
    """Torn down just before ``vm``."""
    yield
    ended["given up"] = -time.monotonic()


def over(name: str) -> None:
    ended.update(at=time.monotonic(), name=name)


def until_ready(vmsnap: VmsnapSession) -> None:
    assert vmsnap._engine
    standbys = vmsnap._engine.pool._standbys
    while standbys._on_the_way or not standbys._waiting:
        time.sleep(0.05)


def busy() -> float:
    """Seconds of processor time that the host has spent."""
    first = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    return (sum(map(int, first)) - int(first[3]) - int(first[4])) / os.sysconf("SC_CLK_TCK")


def pss_mib(pid: int | None) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


@pytest.mark.usefixtures("before", "vm", "behind")
@pytest.mark.parametrize("number", range(TIMES + 1))
def test_standby(vm: Machine, vmsnap: VmsnapSession, number: int) -> None:
    vm.run("true")
    answered("standby")
    until_ready(vmsnap)
    time.sleep(0.5)
    over("standby")


@pytest.mark.usefixtures("before", "vm", "behind")
@pytest.mark.parametrize("number", range(TIMES + 1))
def test_paused_standby(vm: Machine, vmsnap: VmsnapSession, number: int) -> None:
    vm.run("true")
    answered("paused standby")
    if number < TIMES:
        until_ready(vmsnap)
        while any(s.lease.clone.domain.condition() != "paused" for s in vmsnap._engine.pool._standbys._waiting):  # type: ignore[union-attr]
            time.sleep(0.1)
    if number == TIMES // 2:
        assert vmsnap._engine
        found["pss"] = [pss_mib(s.lease.clone.domain.pid()) for s in vmsnap._engine.pool._standbys._waiting]
    over("paused standby")


@pytest.mark.usefixtures("before", "vm", "behind")
@pytest.mark.parametrize("number", range(3 * TIMES + 1))
def test_back_to_back(vm: Machine, number: int) -> None:
    vm.run("true")
    answered("back-to-back")
    if number == 0:
        found["busy"] = -busy()
    if number == 3 * TIMES:
        found["busy"] = (found["busy"] + busy()) / (3 * TIMES)
    over("back-to-back")


@pytest.mark.usefixtures("before", "vm", "behind")
@pytest.mark.parametrize("number", range(TIMES + 1))
def test_cold(vm: Machine, vmsnap: VmsnapSession, number: int) -> None:
    vm.run("true")
    answered("cold clone")
    assert vmsnap._engine
    vmsnap._engine.pool._standbys._most = 0
    vmsnap._engine.pool._standbys.expect([])
    while vmsnap._engine.pool._standbys._on_the_way:
        time.sleep(0.05)
    time.sleep(3)  # what was discarded has ended
    over("cold clone")


def test_peers(vmsnap: VmsnapSession, vm_spec: MachineSpec) -> None:
    spec = vm_spec.replace(cpus=vm_spec.cpus or vmsnap.facts.cpus)
    with peer(vmsnap, spec, FILL if USED_MIB else "") as machine:

        def agent() -> None:
            by_agent(machine.domain)

        def shell() -> None:
            machine.channel.close()
            machine.channel.open(timeout=600)
            machine.channel.run(Request(text="true"), timeout=600)

        def measure(name: str, call: Any, times: int) -> None:
            found[f"{name}, guest agent"] = timed(call, agent, times)
            found[f"{name}, our shell"] = timed(call, shell, min(times, SLOW))

        machine.savevm()
        measure("loadvm", machine.loadvm, PEER_TIMES)
        machine.snapshot()
        measure("libvirt revertToSnapshot", machine.revert, PEER_TIMES)
        machine.save()
        measure("save/restore, fresh overlay", machine.restore, PEER_TIMES)
        found["reboot, fresh overlay, guest agent"] = timed(machine.reboot, agent, SLOW)
