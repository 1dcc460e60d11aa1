"""What a guest prints on its serial console is recorded whole, and at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vmsnap import Machine


def test_a_console_of_megabytes_is_whole(vm: Machine) -> None:
    vm.succeed("seq -f 'line %07g of many' 1 250000 >/dev/console", timeout=600)
    for number in (1, 125_000, 250_000):
        assert vm.wait_for_console_text(f"line {number:07} of many")


def test_what_a_guest_printed_is_there_when_its_next_command_ends(vm: Machine) -> None:
    for number in range(30):
        vm.succeed(f"echo words {number} >/dev/console")
        vm.succeed("true")
        assert f"words {number}" in vm.console_log
