"""Ports of the guest on the host, and the cable."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import HostError, SpecError

if TYPE_CHECKING:
    from pytest_vmsnap import Machine

GREETING = b"SSH-2.0-"  # the image has a server that speaks first


def greeting(address: tuple[str, int], timeout: float = 20.0) -> bytes:
    with socket.create_connection(address, timeout=timeout) as connection:
        connection.settimeout(timeout)
        return connection.recv(len(GREETING))


def test_a_port_of_the_guest_is_reached_from_the_host(vm: Machine) -> None:
    vm.wait_for_open_port(22)
    address = vm.forward_port(22)
    assert address[0] == vm.address
    assert greeting(address) == GREETING
    assert vm.forward_port(22)[1] != address[1]  # another forward, and both hold
    assert greeting(address) == GREETING


def test_a_port_that_is_taken_is_named(vm: Machine) -> None:
    _, port = vm.forward_port(22)
    with pytest.raises(HostError, match=str(port)):
        vm.forward_port(80, host_port=port)
    with pytest.raises(SpecError, match="guest_port=0"):
        vm.forward_port(0)
    with pytest.raises(SpecError, match="protocol='sctp'"):
        vm.forward_port(22, protocol="sctp")  # type: ignore[arg-type]


def test_a_blocked_network_lets_nothing_pass_until_it_is_unblocked(vm: Machine) -> None:
    vm.wait_for_open_port(22)
    address = vm.forward_port(22)
    carrier = "cat /sys/class/net/eth0/carrier"
    assert greeting(address) == GREETING
    vm.block_network()
    vm.wait_until(lambda: vm.succeed(carrier) == "0\n")
    with pytest.raises(TimeoutError):
        greeting(address, timeout=2)
    vm.unblock_network()
    vm.wait_until(lambda: vm.succeed(carrier) == "1\n")
    assert greeting(address) == GREETING


@pytest.mark.vm(network="isolated")
def test_an_isolated_machine_is_reached_and_reaches_nobody(vm: Machine) -> None:
    vm.wait_for_open_port(22)
    vm.wait_until_succeeds("ip -4 addr show dev eth0 | grep inet")
    assert greeting(vm.forward_port(22)) == GREETING
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.settimeout(3)
        vm.fail(f"timeout 3 bash -c 'echo x >/dev/tcp/10.0.2.2/{port}'")
        with pytest.raises(TimeoutError):
            listener.accept()
