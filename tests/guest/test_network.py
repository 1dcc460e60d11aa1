"""What a machine has at its back: ports, the cable, keys, a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import HostError, SpecError

from .clients import GREETING, greeting

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap import Machine


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


def test_what_is_no_key_and_a_machine_without_screen_are_named(vm_module: Machine, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no screen"):
        vm_module.screenshot(tmp_path / "none.png")
    with pytest.raises(SpecError, match="any-key"):
        vm_module.send_key("any-key")
    with pytest.raises(SpecError, match="'ä'"):
        vm_module.send_chars("ä")
