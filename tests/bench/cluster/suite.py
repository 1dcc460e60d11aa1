"""The measurements, as tests of the plugin's own; `python tests/bench/cluster` runs them."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.fork import DomainFactory, Template
from pytest_vmsnap.guest import Request, join_network, settle
from pytest_vmsnap.host import LanPort, processes
from pytest_vmsnap.network import address_of
from pytest_vmsnap.network.switch import Switch
from pytest_vmsnap.pool.lease import Lease
from tests.bench.revert.peers import Peer, ordinary_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from xml.etree.ElementTree import Element

    from pytest_vmsnap import Cluster, Machine
    from pytest_vmsnap.guest import Channel
    from pytest_vmsnap.model import MachineSpec
    from pytest_vmsnap.session import VmsnapSession

TIMES = int(os.environ["VMSNAP_BENCH_TIMES"])
TARGET = Path(os.environ["VMSNAP_BENCH_RESULTS"])
SECONDS = 600.0
QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"

# A connection that carries a line every tenth of a second; each answer is noted.
SERVE = (
    "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalPort => 7, Listen => 5, ReuseAddr => 1);"
    " while ($c = $s->accept) { while (<$c>) { print $c $_ } }' >/dev/null 2>&1 </dev/null &"
)
TALK = (
    'perl -MIO::Socket::INET -e \'$s = IO::Socket::INET->new(PeerAddr => "one", PeerPort => 7) or die;'
    ' $s->autoflush(1); for (;;) { print $s "x\\n"; defined(<$s>) or die; open(L, ">>/dev/shm/log");'
    ' print L "x\\n"; close L; select(undef, undef, undef, 0.1) }\' >/dev/null 2>&1 </dev/null &'
)
ANSWERS = "wc -l </dev/shm/log 2>/dev/null || echo 0"
WATCHED = 20.0  # seconds in which a connection that lives has carried something

found: dict[str, Any] = {}


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


def until_ready(vmsnap: VmsnapSession) -> None:
    """A standby is there, and nothing else is being made or ended."""
    assert vmsnap._engine
    standbys = vmsnap._engine.pool._standbys
    while standbys._on_the_way or not standbys._waiting:
        time.sleep(0.05)
    time.sleep(1)


def without_standbys(vmsnap: VmsnapSession) -> None:
    """From now on, machines are made when they are asked for."""
    assert vmsnap._engine
    standbys = vmsnap._engine.pool._standbys
    standbys._most = 0
    standbys.expect([])
    while standbys._on_the_way:
        time.sleep(0.05)


@pytest.fixture
def asked() -> float:
    """Set up just before the machines: when the test asked for them."""
    return time.monotonic()


def answered(name: str, asked: float, number: int, *machines: Machine) -> None:
    """Note the seconds until each machine has answered a command; the first time, states are built.

    All are asked at once: what is measured is how soon they answer, not how long it takes to ask one after the
    other.
    """
    handed_over = time.monotonic() - asked
    for answer in [ASKING.submit(machine.succeed, "true") for machine in machines]:
        answer.result()
    if number:
        found.setdefault(name, []).append(time.monotonic() - asked)
        found.setdefault(f"{name}: the hand-over alone", []).append(handed_over)


def rest() -> None:
    time.sleep(3)  # what was discarded has ended


ASKING = ThreadPoolExecutor(3)  # it starts its threads in the first round, which does not count
EACH = pytest.mark.parametrize("number", range(TIMES + 1))


@EACH
@pytest.mark.usefixtures("asked", "vm_cluster")
@pytest.mark.vm_state("joined")
def test_ahead(vm_cluster: Cluster, vmsnap: VmsnapSession, asked: float, number: int) -> None:
    answered("three machines, made ahead", asked, number, *vm_cluster.values())
    until_ready(vmsnap)


@EACH
@pytest.mark.usefixtures("asked", "vm")
@pytest.mark.vm_state("filled")
def test_one_ahead(vm: Machine, vmsnap: VmsnapSession, asked: float, number: int) -> None:
    answered("one machine, made ahead", asked, number, vm)
    until_ready(vmsnap)


def pss_mib(machines: Mapping[str, Machine]) -> float:
    pids = {guest: pid for pid, guest in processes.qemus()}
    lines = [
        line
        for machine in machines.values()
        for line in Path(f"/proc/{pids[machine.domain.name()]}/smaps_rollup").read_text().splitlines()
    ]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


@EACH
@pytest.mark.usefixtures("asked", "vm")
@pytest.mark.vm_state("filled")
def test_one_on_demand(vm: Machine, vmsnap: VmsnapSession, asked: float, number: int) -> None:
    answered("one machine, made on demand", asked, number, vm)
    without_standbys(vmsnap)
    rest()
    if number == TIMES:
        vm.succeed("cat /dev/shm/used >/dev/null")
        found["PSS of one, MiB"] = pss_mib({"one": vm})


@EACH
@pytest.mark.usefixtures("asked", "vm_cluster")
@pytest.mark.vm_state("joined")
def test_on_demand(vm_cluster: Cluster, asked: float, number: int) -> None:
    answered("three machines, made on demand", asked, number, *vm_cluster.values())
    rest()
    if number == TIMES:
        for machine in vm_cluster.values():
            machine.succeed("cat /dev/shm/used >/dev/null")
        found["PSS of three, MiB"] = pss_mib(vm_cluster)


@pytest.mark.vm_state("joined")
def test_save(vm_cluster: Cluster, vmsnap: VmsnapSession, monkeypatch: pytest.MonkeyPatch) -> None:
    without_standbys(vmsnap)
    stopped: list[float] = []
    resumed: list[float] = []
    suspend, resume = Lease.suspend, Lease.resume

    def note_suspend(lease: Lease) -> None:
        stopped.append(time.monotonic())
        suspend(lease)

    def note_resume(lease: Lease) -> None:
        resume(lease)
        resumed.append(time.monotonic())

    monkeypatch.setattr(Lease, "suspend", note_suspend)
    monkeypatch.setattr(Lease, "resume", note_resume)
    for number in range(TIMES):
        stopped.clear()
        resumed.clear()
        started = time.monotonic()
        vm_cluster.snapshot(f"s{number}")
        found.setdefault("vm_cluster.snapshot", []).append(time.monotonic() - started)
        found.setdefault("of that, all stand still", []).append(max(resumed) - min(stopped))


@pytest.mark.vm_state("joined")
def test_switch_at_rest(vm_cluster: Cluster, vmsnap: VmsnapSession) -> None:
    without_standbys(vmsnap)
    time.sleep(5)
    stat = Path(f"/proc/{vm_cluster._lease.switch.pid}/stat")

    def ticks() -> int:
        return sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13]))

    before = ticks()
    time.sleep(20)
    found["processor time of the switch at rest, share"] = (ticks() - before) / os.sysconf("SC_CLK_TCK") / 20


@pytest.mark.vm_state("joined")
def test_connection(vm_cluster: Cluster, vmsnap: VmsnapSession) -> None:
    without_standbys(vmsnap)
    one, two = vm_cluster["one"], vm_cluster["two"]
    one.succeed(SERVE)
    two.wait_for_open_port(7, address="one")
    two.succeed(TALK)
    two.wait_until_succeeds(f"[ $({ANSWERS}) -gt 2 ]")
    vm_cluster.snapshot("talking")
    alive = 0
    for _ in range(TIMES):
        vm_cluster.revert("talking")
        before = int(two.succeed(ANSWERS))
        two.wait_until_succeeds(f"[ $({ANSWERS}) -gt {before} ]")
        alive += 1
    found["connections that went on after a revert"] = f"{alive} of {TIMES}"


@pytest.mark.vm_state("joined")
def test_boot(vm_cluster: Cluster, vmsnap: VmsnapSession) -> None:
    without_standbys(vmsnap)

    def boot(machine: Machine) -> None:
        machine.crash()
        machine.start()
        machine.succeed("true")

    for _ in range(3):
        started = time.monotonic()
        with ThreadPoolExecutor(len(vm_cluster)) as threads:
            list(threads.map(boot, vm_cluster.values()))
        found.setdefault("three machines, booted", []).append(time.monotonic() - started)


def test_peers(vmsnap: VmsnapSession, vm: Machine, vm_spec: MachineSpec) -> None:
    """libvirt's own snapshots of each of three machines, one after the other: there is no other way."""
    engine = vmsnap._engine
    assert engine
    spec = vm_spec.replace(cpus=vm_spec.cpus or vmsnap.facts.cpus)
    image = engine.library.found[spec, "base"].image
    found["image"] = {"disk": str(image.disk), "kernel": str(image.kernel), "initrd": str(image.initrd)}
    names = ("one", "two", "three")
    addresses = [address_of(name, place) for place, name in enumerate(names)]
    with ExitStack() as stack:
        run = engine.host.run
        switch = stack.enter_context(Switch(names, directory=run.data, name="bench", grant=lambda _path: None))
        channels: dict[str, Channel] = {}
        peers: dict[str, Peer] = {}
        for own in addresses:
            lan = LanPort(socket=switch.path_of(own.name), mac=own.mac)

            def customize(domain: Element, spec: MachineSpec, lan: LanPort = lan) -> None:
                ordinary_memory(domain, spec)
                line = domain.find(f"{QEMU}commandline")
                assert line is not None
                for argument in lan.arguments("bios"):
                    line.append(line.makeelement(f"{QEMU}arg", {"value": argument}))

            factory = DomainFactory(
                host=engine.host,
                root=vmsnap.settings.root,
                customize=customize,
                ports=engine.channel_factory.ports,
            )
            template = stack.enter_context(Template(factory, spec=spec, image=image))
            channel = stack.enter_context(closing(engine.channel_factory.channel_to(template, image)))
            channel.open(timeout=SECONDS)
            settle(channel, template.domain, timeout=SECONDS)
            channels[own.name] = channel
            peers[own.name] = Peer(template, channel)

        def run_in(name: str, text: str) -> str:
            result = channels[name].run(Request(text=text), timeout=SECONDS)
            return result.stdout.decode()

        for own in addresses:
            join_network(channels[own.name], own, addresses, timeout=SECONDS)
        run_in("one", SERVE)
        time.sleep(5)
        run_in("two", TALK)
        time.sleep(5)
        assert int(run_in("two", ANSWERS)) > 0
        for machine in peers.values():
            machine.snapshot()
        alive = 0
        for _ in range(3):
            started = time.monotonic()
            for name, machine in peers.items():
                channels[name].close()
                machine.revert()
            for channel in channels.values():
                channel.open(timeout=SECONDS)
                channel.run(Request(text="true"), timeout=SECONDS)
            found.setdefault("libvirt's snapshot-revert on each", []).append(time.monotonic() - started)
            before = int(run_in("two", ANSWERS))
            time.sleep(WATCHED)
            alive += int(run_in("two", ANSWERS)) > before
        found["connections that went on after libvirt's"] = f"{alive} of 3"
