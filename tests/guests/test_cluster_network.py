"""Machines of other kinds on a private network, also after a reboot: whatever manages it in them keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_vmsnap import Cluster

ECHO = (
    "perl -MIO::Socket::IP -e '$s = IO::Socket::IP->new("
    "LocalHost => qq(::), V6Only => 0, LocalPort => 7, Listen => 5, ReuseAddr => 1);"
    " while ($c = $s->accept) { print $c 1 }' >/dev/null 2>&1 &"
)

pytestmark = [pytest.mark.contract, pytest.mark.vm_cluster(server={}, client={})]


def test_machines_find_each_other_by_name_before_and_after_a_reboot(vm_cluster: Cluster) -> None:
    server, client = vm_cluster["server"], vm_cluster["client"]
    server.succeed(ECHO)
    client.wait_for_open_port(7, address="server")
    server.reboot()
    assert server.succeed("cat /proc/sys/kernel/hostname") == "server\n"
    server.succeed(ECHO)
    for address in ("server", vm_cluster.network.address("server").ipv6):
        client.wait_for_open_port(7, address=address)
