"""Real machines on a private network, saved and reverted as one."""

from __future__ import annotations

import os
import shlex
import signal
import time
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import SpecError, SwitchGone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_vmsnap import Cluster, Machine

pytestmark = pytest.mark.vm_cluster(server={}, client={})

ECHO = (
    "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalPort => 7, Listen => 5, ReuseAddr => 1);"
    " while ($c = $s->accept) { next if fork; while (<$c>) { print $c $_ } exit }' >/dev/null 2>&1 &"
)
TALK = """
cat >/root/talk.pl <<'END'
use IO::Socket::INET;
$s = IO::Socket::INET->new(PeerAddr => "server", PeerPort => 7) or die "no connection: $!";
$s->autoflush(1);
for ($i = 0;; $i++) {
    print $s "$i\\n";
    defined($line = <$s>) or die "closed";
    open(LOG, ">>/root/log"); print LOG $line; close LOG;
    select(undef, undef, undef, 0.1);
}
END
perl /root/talk.pl >/root/trouble 2>&1 &
"""


def talk(cluster: Cluster, name: str = "client") -> None:
    """Begin a connection that carries data all the time; its client, the machine `name`, notes each answer."""
    cluster["server"].succeed(ECHO)
    cluster[name].wait_for_open_port(7, address="server")
    cluster[name].succeed(TALK)
    goes_on(cluster[name])


def answers(client: Machine) -> int:
    return int(client.succeed("cat /root/log 2>/dev/null | wc -l"))


def goes_on(client: Machine) -> None:
    """The connection that was begun carries more, the same one: its answers are in order, without a gap."""
    before = answers(client)
    client.wait_until_succeeds(f"[ $(wc -l </root/log) -gt {before + 2} ]", timeout=60)
    log = client.succeed("cat /root/log").split()
    assert log == [str(number) for number in range(len(log))]
    assert client.succeed("cat /root/trouble") == ""


def device(machine: Machine) -> str:
    return machine.succeed("grep -l 52:54:00:76:6d /sys/class/net/*/address | cut -d/ -f5").strip()


def test_each_machine_has_its_name_its_addresses_and_the_names_of_all(vm_cluster: Cluster) -> None:
    assert list(vm_cluster) == ["server", "client"]
    assert repr(vm_cluster["client"]).startswith("<Machine client (vmsnap-")
    with pytest.raises(KeyError, match=r"no machine 'clint'.*server, client"):
        vm_cluster["clint"]
    for name, machine in vm_cluster.items():
        assert machine.succeed("hostname; cat /etc/hostname").split() == [name, name]
        own = vm_cluster.network.address(name)
        shown = machine.succeed(f"ip -o addr show dev {device(machine)}")
        assert f"{own.ipv4}/24" in shown
        assert f"{own.ipv6}/64" in shown
        for other in vm_cluster:
            address = vm_cluster.network.address(other)
            assert address.ipv4 in machine.succeed(f"getent ahostsv4 {other}")
            assert address.ipv6 in machine.succeed(f"getent ahostsv6 {other}")


def test_they_reach_each_other_by_both_protocols_and_the_world_as_before(vm_cluster: Cluster) -> None:
    server, client = vm_cluster["server"], vm_cluster["client"]
    server.succeed(ECHO)
    client.wait_for_open_port(7, address=vm_cluster.network.address("server").ipv4)
    for machine in (server, client):
        assert "10.0.2.15" in machine.succeed("ip -o -4 addr")
        assert "via 10.0.2.2" in machine.succeed("ip route")


@pytest.mark.thorough
def test_all_of_it_is_there_after_a_reboot(vm_cluster: Cluster) -> None:
    server, client = vm_cluster["server"], vm_cluster["client"]
    server.reboot()
    assert server.succeed("hostname") == "server\n"
    assert vm_cluster.network.address("client").ipv4 in server.succeed("getent ahostsv4 client")
    server.succeed(ECHO)
    client.wait_for_open_port(7, address="server", timeout=60)


@pytest.mark.thorough
def test_a_machine_that_lost_its_power_comes_back_on_the_network(vm_cluster: Cluster) -> None:
    server, client = vm_cluster["server"], vm_cluster["client"]
    server.crash()
    server.start()
    server.succeed(ECHO)
    client.wait_for_open_port(7, address="server", timeout=60)


@pytest.mark.smoke
def test_a_connection_goes_on_where_it_was_after_a_revert(vm_cluster: Cluster) -> None:
    talk(vm_cluster)
    vm_cluster.snapshot("talking")
    goes_on(vm_cluster["client"])
    for _ in range(2):
        vm_cluster.revert("talking")
        goes_on(vm_cluster["client"])
    vm_cluster.snapshot("later")
    vm_cluster.revert("later")
    goes_on(vm_cluster["client"])
    vm_cluster.revert()
    assert vm_cluster["client"].succeed("ls /root/log 2>/dev/null; true") == ""


@pytest.mark.thorough
@pytest.mark.vm_cluster(server={}, client={}, third={})
def test_connections_go_on_after_each_of_many_reverts(vm_cluster: Cluster) -> None:
    """`VMSNAP_SOAK` is how many; the server talks with both others, each over a connection of its own."""
    talk(vm_cluster, "client")
    vm_cluster["third"].succeed(TALK)
    vm_cluster.snapshot("talking")
    for _ in range(int(os.environ.get("VMSNAP_SOAK", "8"))):
        vm_cluster.revert("talking")
        for name in ("client", "third"):
            goes_on(vm_cluster[name])


def test_a_rollback_is_of_all_machines(vm_cluster: Cluster) -> None:
    with vm_cluster.rollback():
        for machine in vm_cluster.values():
            machine.succeed("touch /root/was-here")
    for machine in vm_cluster.values():
        machine.fail("test -e /root/was-here")


def test_two_clusters_never_hear_each_other(vm_cluster: Cluster, vm_cluster_module: Cluster) -> None:
    server, other = vm_cluster["server"], vm_cluster_module["client"]
    heard = f"cat /sys/class/net/{device(other)}/statistics/rx_packets"
    vm_cluster_module["server"].succeed(f"ip link set {device(vm_cluster_module['server'])} down")
    before = other.succeed(heard)
    server.succeed(
        "for n in 1 2 3 4 5; do ip neigh flush all; perl -e 'use IO::Socket::INET; "
        'IO::Socket::INET->new(PeerAddr => "10.118.109.77", PeerPort => 7, Timeout => 1)\'; done'
    )
    assert other.succeed(heard) == before


def test_a_partition_ends_with_its_block_and_a_cut_when_it_is_healed(vm_cluster: Cluster) -> None:
    talk(vm_cluster)
    with vm_cluster.network.partition({"server"}, {"client"}) as fault:
        assert vm_cluster.network.faults == (fault,)
        stalled(vm_cluster)
    goes_on(vm_cluster["client"])
    cut = vm_cluster.network.cut("client")
    stalled(vm_cluster)
    cut.heal()
    goes_on(vm_cluster["client"])
    assert vm_cluster.network.faults == ()
    assert vm_cluster.network.evidence(None)[-1] == "fault, ended: cut('client')"


def stalled(cluster: Cluster) -> None:
    """No answer comes any more, but for one that was on its way."""
    cluster["client"].succeed("sleep 1")
    before = answers(cluster["client"])
    cluster["client"].succeed("sleep 1.5")
    assert answers(cluster["client"]) == before


@pytest.mark.thorough
def test_a_delay_is_seen_by_the_guests(vm_cluster: Cluster) -> None:
    server, client = vm_cluster["server"], vm_cluster["client"]
    server.succeed(ECHO)
    client.wait_for_open_port(7, address="server")
    once = "s=$(date +%s%N); bash -c '</dev/tcp/server/7' && e=$(date +%s%N) && echo $(((e - s) / 1000000))"

    def milliseconds() -> int:
        return min(int(client.succeed(once)) for _ in range(3))

    with vm_cluster.network.delay(0.8, "client"):
        assert milliseconds() >= 1600  # there and back
    with vm_cluster.network.delay(0.8, "client", "server", one_way=True):
        assert milliseconds() >= 800


def test_bandwidth_is_what_was_asked_for(vm_cluster: Cluster) -> None:
    server, client = vm_cluster["server"], vm_cluster["client"]
    server.succeed(ECHO)
    client.wait_for_open_port(7, address="server")
    send = "tr '\\0' '\\n' </dev/zero >/dev/tcp/server/7"
    heard = f"cat /sys/class/net/{device(server)}/statistics/rx_bytes"
    before, started = int(server.succeed(heard)), time.monotonic()
    with vm_cluster.network.bandwidth(20_000, "client", "server", one_way=True):
        client.popen(f"bash -c {shlex.quote(send)}")
        server.wait_until_succeeds(f"[ $({heard}) -gt {before + 60_000} ]", timeout=60)
        rate = (int(server.succeed(heard)) - before) / (time.monotonic() - started)
    assert rate < 20_000 * 1.1


@pytest.mark.thorough
def test_tcp_survives_loss_duplicates_and_disorder(vm_cluster: Cluster) -> None:
    talk(vm_cluster)
    network = vm_cluster.network
    with network.loss(0.2, seed=1), network.duplicate(0.3, seed=2), network.reorder(0.3, seed=3):
        goes_on(vm_cluster["client"])
    assert repr(network.loss(0.1, "client", seed=5)) == "loss(0.1, 'client', seed=5)"


def test_a_revert_ends_faults_and_a_snapshot_has_those_of_its_moment(vm_cluster: Cluster) -> None:
    talk(vm_cluster)
    vm_cluster.snapshot("whole")
    vm_cluster.network.cut("server")
    vm_cluster.snapshot("cut off")
    vm_cluster.revert("whole")
    assert vm_cluster.network.faults == ()
    goes_on(vm_cluster["client"])
    vm_cluster.revert("cut off")
    stalled(vm_cluster)
    vm_cluster.network.heal()
    goes_on(vm_cluster["client"])


def test_a_capture_has_what_was_said(vm_cluster: Cluster, tmp_path: Path) -> None:
    talk(vm_cluster)
    with vm_cluster.network.capture(tmp_path / "talk.pcapng"):
        goes_on(vm_cluster["client"])
    captured = (tmp_path / "talk.pcapng").read_bytes()
    assert captured.startswith(b"\x0a\x0d\x0d\x0a")
    assert captured.count(b"\x00\x07") > 2  # the port


def test_one_machine_cannot_be_saved_alone(vm_cluster: Cluster) -> None:
    for call in (vm_cluster["client"].snapshot, vm_cluster["client"].revert):
        with pytest.raises(SpecError, match="a machine of a cluster cannot be saved"):
            call("x")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda network: network.partition({"server"}, {"clint"}),
            "no machine 'clint'(.|\n)*did you mean client",
        ),
        (lambda network: network.partition({"server"}, {"server", "client"}), "in two groups"),
        (lambda network: network.partition("server"), "give groups"),
        (lambda network: network.cut("x"), "no machine 'x'(.|\n)*server, client"),
        (lambda network: network.loss(2), "fraction=2 must be a number from 0 to 1"),
        (lambda network: network.delay(-1), "seconds=-1 must be"),
        (lambda network: network.delay(1, "server", "server"), "two different"),
        (lambda network: network.bandwidth(0), "bytes_per_second=0"),
    ],
)
def test_wrong_faults_are_refused(
    vm_cluster_module: Cluster, call: Callable[[object], None], words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        call(vm_cluster_module.network)
    assert vm_cluster_module.network.faults == ()


def test_a_dead_switch_is_an_error_that_says_so_and_a_revert_has_a_new_one(vm_cluster: Cluster) -> None:
    talk(vm_cluster)
    vm_cluster.snapshot("talking")
    os.kill(vm_cluster._lease.switch.pid, signal.SIGKILL)
    os.waitid(os.P_PID, vm_cluster._lease.switch.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(SwitchGone, match="has ended with status -9"):
        vm_cluster.network.cut("server")
    with pytest.raises(SwitchGone):
        vm_cluster.snapshot("again")
    vm_cluster.revert("talking")
    goes_on(vm_cluster["client"])
