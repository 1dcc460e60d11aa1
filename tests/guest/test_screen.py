"""What is seen and typed at the machine itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import SpecError

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap import Machine

Image = pytest.importorskip("PIL.Image")


def colours(path: Path) -> int:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return len(image.convert("RGB").getcolors(1 << 24))


@pytest.mark.vm(screen=True)
def test_the_screen_shows_what_the_guest_wrote_and_keys_arrive(vm: Machine, tmp_path: Path) -> None:
    vm.succeed("printf '\\033[2J\\033[H' >/dev/tty1")
    blank = vm.screenshot(tmp_path / "blank.png").read_bytes()
    vm.succeed("printf '\\033[1;31mRED\\033[1;32mGREEN' >/dev/tty1")
    vm.wait_until(lambda: vm.screenshot(tmp_path / "shown.png").read_bytes() != blank)
    assert colours(tmp_path / "shown.png") >= 3  # black, red, green
    typed = vm.popen("head -n 1 </dev/tty1")
    vm.wait_until_succeeds("fuser /dev/tty1 || pgrep -x head")
    vm.send_chars("Hello, World #1!")
    vm.send_key("ret")
    assert typed.wait().text == "Hello, World #1!\n"


def test_what_is_no_key_and_a_machine_without_screen_are_named(vm_module: Machine, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no screen"):
        vm_module.screenshot(tmp_path / "none.png")
    with pytest.raises(SpecError, match="any-key"):
        vm_module.send_key("any-key")
    with pytest.raises(SpecError, match="'ä'"):
        vm_module.send_chars("ä")
