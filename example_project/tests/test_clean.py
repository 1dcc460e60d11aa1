"""What pytest-vmsnap promises: the next test finds nothing of what a test does to its machine.

Each test runs twice. Each time, it finds the machine as it was prepared, and wrecks it. All tests are
`vm_fresh`, so they also pass with ``--vmsnap-revert=marked``, which lets the other tests share a machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from notes import Notes

    from pytest_vmsnap import Machine

pytestmark = [pytest.mark.vm_fresh, pytest.mark.parametrize("turn", ["first", "second"])]


@pytest.mark.usefixtures("turn")
def test_a_firewall_rule_and_a_sysctl_are_gone(vm: Machine, notes: Notes) -> None:
    assert vm.succeed("nft list ruleset") == ""
    assert vm.succeed("sysctl -n net.ipv4.ip_forward") == "0\n"
    assert notes.release() == "2"

    vm.succeed(
        "nft add table inet filter",
        "nft add chain inet filter input '{ type filter hook input priority 0; }'",
        "nft add rule inet filter input tcp dport 8080 reject",
        "sysctl -q net.ipv4.ip_forward=1",
    )
    vm.fail("curl -sS http://localhost:8080/release")


@pytest.mark.usefixtures("turn")
def test_a_mount_is_gone(vm: Machine, notes: Notes) -> None:
    vm.fail("mountpoint -q /var/lib/notesd")
    assert notes.put("colour", "blue") == 204

    vm.succeed("mount -t tmpfs tmpfs /var/lib/notesd")
    assert vm.succeed("ls /var/lib/notesd") == ""


def test_a_wiped_disk_is_whole_again(vm: Machine, notes: Notes, turn: str) -> None:
    assert notes.put("colour", turn) == 204
    assert notes.get("colour") == turn

    vm.succeed("rm -rf /etc /opt /var/lib/notesd")
    vm.fail("id notesd")
