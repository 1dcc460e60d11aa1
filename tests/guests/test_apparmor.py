"""A guest with AppArmor: its profiles are enforced, and reverted with everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_vmsnap import Machine

pytestmark = pytest.mark.contract

PROFILE = """
abi <abi/4.0>,
include <tunables/global>
profile reader /usr/local/bin/reader {
  include <abstractions/base>
  /usr/local/bin/reader mr,
  /etc/hostname r,
}
"""


def test_a_profile_is_enforced_and_is_what_it_was_after_a_revert(vm: Machine) -> None:
    assert vm.succeed("aa-enabled") == "Yes\n"
    vm.write_text("/etc/apparmor.d/reader", PROFILE)
    vm.succeed("install /bin/cat /usr/local/bin/reader; echo secret >/root/secret")
    vm.succeed("apparmor_parser --replace /etc/apparmor.d/reader")
    vm.succeed("reader /etc/hostname")
    assert "Permission denied" in vm.fail("reader /root/secret 2>&1")
    vm.snapshot("confined")
    vm.succeed("apparmor_parser --remove /etc/apparmor.d/reader; rm /etc/apparmor.d/reader")
    assert vm.succeed("reader /root/secret") == "secret\n"
    vm.revert("confined")
    assert "Permission denied" in vm.fail("reader /root/secret 2>&1")
