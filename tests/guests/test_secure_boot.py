"""A machine with Secure Boot: it is on, and what a test stores with the firmware is gone in the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_vmsnap import Machine

SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
ENTRY = "efibootmgr -c -d /dev/vda -p 2 -L added-by-a-test -l '\\EFI\\BOOT\\BOOTX64.EFI'"

pytestmark = pytest.mark.contract


def test_secure_boot_is_on_and_a_boot_entry_stays_over_a_reboot(vm: Machine) -> None:
    assert vm.succeed(f"od -An -tu1 -j4 {SECURE_BOOT}").split() == ["1"]
    vm.succeed(ENTRY)
    vm.reboot()
    assert "added-by-a-test" in vm.succeed("efibootmgr")


def test_the_next_test_has_no_such_entry(vm: Machine) -> None:
    assert "added-by-a-test" not in vm.succeed("efibootmgr")
