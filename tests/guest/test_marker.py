"""A machine that a marker describes, one for all tests here: its memory, disks, network and screen."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from .clients import GREETING, greeting

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap import Machine

Image = pytest.importorskip("PIL.Image")

pytestmark = pytest.mark.vm(
    memory=384, cpus=1, network="isolated", screen=True, disks=[{"size": 64, "serial": "spare"}]
)


def test_a_marker_changes_the_machine(vm: Machine) -> None:
    assert (vm.spec.memory, vm.spec.cpus) == (384, 1)
    total = int(vm.succeed("awk '/MemTotal/ {print $2}' /proc/meminfo"))
    assert 250_000 < total < 384 * 1024
    assert vm.succeed("nproc") == "1\n"
    assert vm.succeed("cat /sys/block/vdb/size") == f"{64 * 2048}\n"
    assert vm.succeed("cat /sys/block/vdb/serial").startswith("spare")


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


def colours(path: Path) -> int:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return len(image.convert("RGB").getcolors(1 << 24))


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
