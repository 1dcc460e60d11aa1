"""Machines whose network NetworkManager manages, in place of systemd-networkd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import state

from .test_cluster_network import ECHO

if TYPE_CHECKING:
    from pytest_vmsnap import Cluster, Machine

pytestmark = pytest.mark.contract


@state
def network_manager(vm: Machine) -> None:
    vm.succeed("systemctl disable --now systemd-networkd systemd-networkd.socket")
    vm.succeed("systemctl enable --now NetworkManager")
    vm.wait_until_succeeds("nmcli --terse --fields STATE general | grep connected")


@pytest.mark.vm_cluster(server={"state": "network_manager"}, client={"state": "network_manager"})
def test_network_manager_keeps_a_machine_on_the_network(vm_cluster: Cluster) -> None:
    server, client = vm_cluster["server"], vm_cluster["client"]
    assert "vmsnap-lan" in server.succeed("nmcli --terse --fields NAME connection show --active")
    server.succeed(ECHO)
    client.wait_for_open_port(7, address="server")
    server.reboot()
    server.wait_until_succeeds("nmcli --terse --fields NAME connection show --active | grep vmsnap-lan")
    server.succeed(ECHO)
    client.wait_for_open_port(7, address="server")
