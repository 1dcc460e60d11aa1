"""Real machines whose boot cannot succeed: each is told at once, with the reason."""

from __future__ import annotations

import os
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import BootError
from pytest_vmsnap.image import commands

from .images import CMDLINE, SHELL_INSTALLED, booting, busybox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_vmsnap import Machine
    from pytest_vmsnap.model import Image, MachineSpec

GRUB = "/usr/lib/grub/i386-pc"  # Debian's grub-pc-bin, which tests/run installs
TESTS = """
import pytest

@pytest.mark.vm(image="rescue.img", memory=64)
def test_rescue(vm): pass

@pytest.mark.vm(image="shell.img", memory=64)
def test_shell(vm): pass

@pytest.mark.vm(image="no-system.img", memory=64)
def test_no_system(vm): pass

@pytest.mark.vm(image="resets.img", memory=64)
def test_resets(vm): pass

@pytest.mark.vm(image="random.img", memory=64)
def test_random(vm): pass

@pytest.mark.vm(image="empty.img", memory=64)
def test_empty(vm): pass
"""
UEFI_TESTS = """
import pytest

@pytest.mark.vm(image="empty-efi.img", memory=256)
def test_empty(vm): pass

@pytest.mark.vm(image="unsigned.img", memory=256, firmware="uefi-secure")
def test_unsigned(vm): pass
"""
FROM_DISK = """
def test_console(vm):
    vm.succeed("echo dirty >/dirty")
    vm.reboot()
    for words in ("SeaBIOS", "Booting from Hard Disk", "GRUB-was-here", "Linux version"):
        assert words in vm.console_log

def test_clone(vm):
    vm.fail("cat /dirty")
    vm.snapshot("now")
    vm.succeed("echo dirty >/dirty")
    vm.revert("now")
    vm.fail("cat /dirty")
    vm.crash()
    vm.start()
    assert "Linux" in vm.succeed("uname")
"""
ONE = "def test_one(vm): pass\n"


def grub(target: Path, *modules: str) -> None:
    """A disk with GRUB in its first sectors, and nothing of what that looks for."""
    core = target.with_suffix(".core")
    prefix = ("-O", "i386-pc", "-d", GRUB, "-p", "(hd0,msdos1)/boot/grub")
    subprocess.run(
        ["grub-mkimage", *prefix, "-o", core, "biosdisk", "part_msdos", "ext2", *modules], check=True
    )
    with open(f"{GRUB}/boot.img", "rb") as boot:  # noqa: PTH123 - it is no path of ours
        target.write_bytes(boot.read() + core.read_bytes())
    os.truncate(target, 4 << 20)


def bootable(target: Path, kernel: Path, initrd: Path) -> None:
    """A disk that boots as others do: by BIOS, GRUB, and a kernel in its first partition."""
    directory = target.with_suffix(".files")
    directory.mkdir()
    (directory / "kernel").write_bytes(kernel.read_bytes())
    (directory / "initrd").write_bytes(initrd.read_bytes())
    config = target.with_suffix(".cfg")
    # Several times: SeaBIOS drops a character if the serial port is not ready for half a second (src/sercon.c).
    said = "echo GRUB-was-here\n" * 5
    config.write_text(f"set root=(hd0,msdos1)\n{said}linux /kernel {CMDLINE}\ninitrd /initrd\nboot\n")
    grub(target, "linux", "echo", "boot", "-c", str(config))
    start, size = 1 << 20, 48 << 20
    os.truncate(target, start + size)
    make = [
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext2",
        "-d",
        directory,
        "-E",
        f"offset={start}",
        target,
        f"{size >> 10}k",
    ]
    subprocess.run(make, check=True, env=commands.environment())
    entry = bytes([0x80, 0, 0, 0, 0x83, 0, 0, 0]) + struct.pack("<II", start >> 9, size >> 9)
    with target.open("r+b") as disk:
        disk.seek(446)
        disk.write(entry.ljust(64, b"\0"))  # boot.img has code for floppy disks there


def efi_disk(target: Path, *, loader: bool = False) -> None:
    """A disk with an EFI system partition; with `loader`, GRUB is in it, which nobody has signed."""
    start, size = 1 << 20, 64 << 20
    partition, code = target.with_suffix(".fat"), target.with_suffix(".efi")
    with partition.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mformat", "-i", partition, "-F", "::"], check=True)
    if loader:
        subprocess.run(["grub-mkimage", "-O", "x86_64-efi", "-p", "/", "-o", code, "normal"], check=True)
        subprocess.run(["mmd", "-i", partition, "::/EFI", "::/EFI/BOOT"], check=True)
        subprocess.run(["mcopy", "-i", partition, code, "::/EFI/BOOT/BOOTX64.EFI"], check=True)
    entry = bytes([0, 0, 0, 0, 0xEF, 0, 0, 0]) + struct.pack("<II", start >> 9, size >> 9)
    table = bytes(446) + entry.ljust(64, b"\0") + b"\x55\xaa"
    target.write_bytes(table.ljust(start, b"\0") + partition.read_bytes())


@pytest.fixture
def built(vm_spec: MachineSpec, provided: Callable[[MachineSpec], Image]) -> Image:
    """The image that the tests' machines start from."""
    return provided(vm_spec)


def test_a_disk_that_starts_no_system_is_told_at_once(project: pytest.Pytester, runner: list[str]) -> None:
    grub(project.path / "rescue.img")
    grub(project.path / "shell.img", "normal")
    # int 0x18 gives the boot back to the BIOS, as boot sectors do that find no active partition
    (project.path / "no-system.img").write_bytes(b"\xcd\x18".ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    # lidt of zeros, int3: without a table of interrupts the processor gives up (a triple fault), and is reset
    resets = b"\x0f\x01\x1e\x40\x7c\xcc"
    (project.path / "resets.img").write_bytes(resets.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    (project.path / "random.img").write_bytes(os.urandom(500) + bytes(12) + os.urandom(1 << 20))
    (project.path / "empty.img").write_bytes(bytes(1 << 20))
    project.makepyfile(test_broken=TESTS)
    result = project.run(*runner)
    result.assert_outcomes(errors=6)
    said = result.stdout.str()
    for words in (
        "the guest did not come up: it is stuck at GRUB's rescue prompt",
        "the guest did not come up: it is stuck at GRUB's prompt",
        "the guest did not come up: the firmware (BIOS) found nothing to boot",
        "the guest did not come up: it was reset",
        "random.img cannot boot: it has neither a boot sector nor an EFI system partition",
        "empty.img cannot boot: it is empty",
    ):
        assert words in said
    assert "grub rescue>" in said
    assert "No bootable device." in said


@pytest.mark.thorough
def test_a_disk_that_uefi_cannot_start_is_told_at_once(project: pytest.Pytester, runner: list[str]) -> None:
    efi_disk(project.path / "empty-efi.img")
    efi_disk(project.path / "unsigned.img", loader=True)
    project.makepyfile(test_broken=UEFI_TESTS)
    result = project.run(*runner)
    result.assert_outcomes(errors=2)
    said = result.stdout.str()
    assert (
        "the guest did not come up: the firmware (UEFI) found nothing to boot, and is at its own shell" in said
    )
    assert "the guest did not come up: Secure Boot refused its boot loader" in said
    assert "Access Denied" in said


@pytest.mark.thorough
def test_a_root_that_is_not_there_is_told_at_once(
    project: pytest.Pytester, runner: list[str], built: Image
) -> None:
    project.makepyfile(test_one=ONE)
    options = ("--vmsnap-image=none", "--vmsnap-memory=160", f"--vmsnap-cmdline={built.cmdline}")
    result = project.run(*runner, *options, *booting(built))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "*the guest did not come up: it is stuck in the shell of its initramfs*",
            "*root= on the kernel's command line*",
            "*initrd: no ext4 file system on /dev/vda*",
        ]
    )


@pytest.mark.thorough
def test_a_guest_whose_kernel_kills_its_services_over_and_over_is_told_so(vm: Machine) -> None:
    # each asks for all of the memory but 8 MiB, which a kernel and its init do not do with
    takes = "set -- $$(grep MemTotal /proc/meminfo); exec dd if=/dev/zero of=/dev/null bs=$$(($$2 - 8192))k"
    starts = f"ExecStart=-/bin/sh -c '{takes}'\n" * 20
    unit = "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n[Service]\nType=oneshot\n"
    vm.write_text("/etc/systemd/system/eats.service", f"{unit}{starts}[Install]\nWantedBy=sysinit.target\n")
    vm.succeed("systemctl enable eats", "sync")
    lacks = r"its memory of \d+ MiB is not enough: .* killed \d+ processes, among them dd"
    with pytest.raises(BootError, match=lacks) as caught:
        vm.reboot()
    assert "vmsnap_memory" in caught.value.hint


@pytest.mark.thorough
@pytest.mark.contract
def test_a_guest_that_comes_back_in_emergency_mode_is_told_at_once(vm: Machine) -> None:
    vm.succeed("systemctl set-default emergency.target", "sync")
    with pytest.raises(BootError, match="it is stuck in systemd's emergency mode"):
        vm.reboot()
    vm.crash()
    with pytest.raises(BootError, match="it is stuck in systemd's emergency mode") as caught:
        vm.start()
    assert "/etc/fstab" in caught.value.hint
    assert "You are in emergency mode" in caught.value.console


def test_a_guest_whose_kernel_panics_in_its_reboot_is_told_at_once(vm: Machine) -> None:
    vm.succeed("rm /sbin/init", "sync")
    with pytest.raises(Exception, match="kernel panicked") as caught:
        vm.reboot()
    assert type(caught.value).__name__ == "GuestHung"


@pytest.mark.thorough
def test_what_firmware_and_boot_loader_print_is_on_the_console_of_a_machine_that_boots_from_its_disk(
    project: pytest.Pytester, runner: list[str], built: Image, tmp_path: Path
) -> None:
    assert built.kernel
    bootable(tmp_path / "disk", built.kernel, busybox(built, tmp_path / "initrd", SHELL_INSTALLED))
    project.makepyfile(test_from_disk=FROM_DISK)
    result = project.run(*runner, f"--vmsnap-image={tmp_path / 'disk'}", "--vmsnap-memory=160")
    result.assert_outcomes(passed=2)


KILLS_QEMU = """
import os, signal, threading, time
from pathlib import Path

TIMES = int(os.environ["TIMES"])
killed = []

def pytest_vmsnap_domain_xml(domain, spec):
    name = domain.findtext("name")
    if "-template-" in name and len(killed) < TIMES:
        killed.append(name)
        threading.Thread(target=kill, args=(name,), daemon=True).start()

def kill(name):
    while True:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
                ticks = (process / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if f"guest={name},".encode() in command and int(ticks[11]) > os.sysconf("SC_CLK_TCK"):
                os.kill(int(process.name), signal.SIGABRT)  # it has run the guest for a second
                return
        time.sleep(0.1)
"""


@pytest.mark.usefixtures("own_store")
def test_a_guest_whose_qemu_crashes_in_the_boot_is_booted_once_more(
    project: pytest.Pytester, light: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    project.makeconftest(KILLS_QEMU)
    project.makepyfile("def test_one(vm): vm.succeed('true')\ndef test_two(vm): ...")
    monkeypatch.setenv("TIMES", "2")
    result = project.runpytest_subprocess(*light, "-p", "no:cacheprovider")
    result.assert_outcomes(errors=2)
    crashed = "QEMU crashed, or was killed, while the guest booted"
    result.stdout.fnmatch_lines([f"vmsnap: warning: {crashed}; it is booted once more*", f"{crashed}*"])
    monkeypatch.setenv("TIMES", "1")
    result = project.runpytest_subprocess(*light, "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([f"vmsnap: warning: {crashed}; it is booted once more*"])
