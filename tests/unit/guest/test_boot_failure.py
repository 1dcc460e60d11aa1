"""Dead ends of a boot, by what guests really print there."""

from __future__ import annotations

import re

import pytest

from pytest_vmsnap.guest.boot_failure import (
    MOST_KILLS,
    MOST_RESETS,
    lacks_memory,
    resets_itself,
    standstill,
    uefi_gave_up,
)

SEABIOS = "\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (version 1.16.2-debian-1.16.2-1)\r\nBooting from Hard Disk...\r\n"
NOTHING_TO_BOOT = (
    SEABIOS + "Boot failed: not a bootable disk\r\n\r\nBooting from Floppy...\r\n"
    "Boot failed: could not read the boot disk\r\n\r\nNo bootable device.\r\n"
)
OVMF = "\x1b[2J\x1b[01;01H\x1b[=3h\x1b[2J\x1b[01;01H"
NO_ENTRY = 'BdsDxe: failed to load Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x2,0x0): '
MENU = "BdsDxe: No bootable option or device was found.\r\nBdsDxe: Press any key to enter the Boot Manager Menu.\r\n"  # noqa: E501
UEFI_SHELL = (
    OVMF + NO_ENTRY + "Not Found\r\n\x1b[2J\x1b[01;01H\x1b[01;01HUEFI Interactive Shell v2.2\r\nEDK II\r\n"
    "\x1b[10;01HPress \x1b[1m\x1b[37m\x1b[40mESC\x1b[0m\x1b[37m\x1b[40m in 1 seconds to skip \x1b[1m"
    "startup.nsh\x1b[0m or any other key to continue.\r\n\x1b[11;01H\x1b[1m\x1b[33m\x1b[40mShell> \x1b[0m"
    "\x1b[37m\x1b[40m"
)
GRUB_RESCUE = (
    SEABIOS + "GRUB loading.\r\n\x1b[0;30;47mWelcome to GRUB!\r\n\r\n"
    "\x1b[0merror: no such partition.\r\nEntering rescue mode...\r\ngrub rescue> "
)
GRUB_SHELL = (
    SEABIOS + "GRUB loading..\r\n\x1b[0;30;47mWe\x1b[04;02H\x1b[04;03Hlcome to GRUB!\x1b[01;01H\x1b[0m\x1b[2J"
    "\x1b[02;24HGNU GRUB  version 2.06-13+deb12u2\r\n\r\n   Minimal BASH-like line editing is supported. For "
    "the first word, TAB   \r\n   lists possible command completions.\r\n\r\n\r\ngrub> "
)
INITRAMFS_TOOLS = (
    "Begin: Waiting for root file system ... done.\r\n"
    "Gave up waiting for root file system device.  Common problems:\r\n - Boot args (cat /proc/cmdline)\r\n"
    "   - Check rootdelay= (did the system wait long enough?)\r\n"
    "ALERT!  UUID=1b2c does not exist.  Dropping to a shell!\r\n\r\n\r\n"
    "BusyBox v1.37.0 (Debian 1:1.37.0-6+b3) built-in shell (ash)\r\n"
    "Enter 'help' for a list of built-in commands.\r\n\r\n(initramfs) "
)
DRACUT = (
    'Generating "/run/initramfs/rdsosreport.txt"\r\n\r\n\r\n'
    'Entering emergency mode. Exit the shell to continue.\r\nType "journalctl" to view system logs.\r\n'
    'You might want to save "/run/initramfs/rdsosreport.txt" to a USB stick or /boot\r\n'
    "after mounting them and attach it to a bug report.\r\n\r\n\r\n"
)
DRACUT_LOCKED = (
    DRACUT + "\r\nCannot open access to console, the root account is locked.\r\n"
    "See sulogin(8) man page for more details.\r\n\r\nPress Enter to continue.\r\n"
)
OURS = "initrd: no ext4 file system on /dev/vda\n/bin/sh: can't access tty; job control turned off\n~ # "
ALPINE = (
    "Mounting root: failed.\r\ninitramfs emergency recovery shell launched. Type 'exit' to continue boot\r\n"
    "/bin/sh: can't access tty; job control turned off\r\n~ # "
)
ARCH = (
    "ERROR: device '/dev/nosuch' not found. Skipping fsck.\r\nYou are now being dropped into an emergency "
    "shell.\r\nsh: can't access tty; job control turned off\r\n[rootfs ~]# "
)
EMERGENCY = (
    '\x1b[!p\x1b]104\x07\x1b[?7hYou are in emergency mode. After logging in, type "journalctl -xb" to view\r\n'
    'system logs, "systemctl reboot" to reboot, or "exit"\r\nto continue bootup.\r\n'
)
SULOGIN = "Press Enter for maintenance\r\n(or press Control-D to continue): "
SULOGIN_SINCE_2_41 = "Press Enter for system maintenance\r\n(or press Control-D to continue): "
ASKED = "Give root password for maintenance\r\n(or press Control-D to continue): "
LOCKED = (
    "\r\nCannot open access to console, the root account is locked.\r\n"
    "See sulogin(8) man page for more details.\r\n\r\nPress Enter to continue.\r\n"
)
RESCUE = EMERGENCY.replace("emergency", "rescue")
SYSVINIT = (
    "The root filesystem is currently mounted in read-only mode. \r\n"
    "A maintenance shell will now be started. \r\nAfter performing system maintenance, press CONTROL-D \r\n"
    "to terminate the maintenance shell and restart the system. ... \x1b[33m(warning).\x1b[0m\r\n"
    "Enter root password for system maintenance\r\n(or press Control-D to continue): "
)
KERNEL = "[   31.102345] random: crng init done\r\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (NOTHING_TO_BOOT, "found nothing to boot"),
        (SEABIOS + "Missing operating system.\r\n", "found no system to start"),
        (SEABIOS + "GRUB Hard Disk Error", "GRUB's boot sector cannot read"),
        (UEFI_SHELL, "found nothing to boot, and is at its own shell"),
        (SYSVINIT, "maintenance shell of its init"),
        (GRUB_RESCUE, "GRUB's rescue prompt"),
        (GRUB_SHELL, "at GRUB's prompt"),
        (INITRAMFS_TOOLS, "shell of its initramfs"),
        (INITRAMFS_TOOLS + KERNEL, "shell of its initramfs"),
        (DRACUT + "dracut:/# ", r"initramfs's emergency shell \(dracut\)"),
        (DRACUT + SULOGIN, r"initramfs's emergency shell \(dracut\)"),
        (DRACUT_LOCKED, r"initramfs's emergency shell \(dracut\)"),
        (OURS, "shell of its initramfs"),
        (ALPINE, "shell of its initramfs"),
        (ARCH, "shell of its initramfs"),
        (EMERGENCY + SULOGIN, "systemd's emergency mode"),
        (EMERGENCY + SULOGIN + KERNEL + KERNEL, "systemd's emergency mode"),
        (EMERGENCY + SULOGIN_SINCE_2_41, "systemd's emergency mode"),
        (EMERGENCY + ASKED, "systemd's emergency mode"),
        (EMERGENCY + LOCKED, "systemd's emergency mode"),
        (RESCUE + ASKED, "systemd's rescue mode"),
    ],
)
def test_a_dead_end_is_known_by_the_last_thing_that_is_shown(text: str, words: str) -> None:
    found = standstill(text)
    assert found
    assert re.search(words, found.where)
    assert found.hint


@pytest.mark.parametrize(
    "text",
    [
        "",
        SEABIOS,
        NOTHING_TO_BOOT + GRUB_RESCUE.removesuffix("grub rescue> "),
        GRUB_SHELL + "linux /vmlinuz\r\n",
        GRUB_SHELL + "[    0.000000] Linux version 6.12.48\r\n",
        INITRAMFS_TOOLS + "exit\r\nBegin: Running /scripts/local-bottom ... done.\r\n",
        INITRAMFS_TOOLS.partition("ALERT!")[0],
        EMERGENCY,
        EMERGENCY + SULOGIN + "\r\nReloading system manager configuration.\r\nStarting default.target\r\n",
        "Debian GNU/Linux 13 vm ttyS0\r\n\r\nvm login: ",
        "/bin/sh: can't access tty; job control turned off\r\n/ # ",  # a guest of busybox alone, well
        DRACUT,
    ],
)
def test_a_guest_that_goes_on_has_come_to_no_dead_end(text: str) -> None:
    assert standstill(text) is None


def killed(count: int, kernel: str = "Out of memory: Killed process") -> str:
    return "".join(
        f"[   {49 + number}.694586] {kernel} {207 + number} (systemd-network) total-vm:29720kB\r\n"
        for number in range(count)
    )


def test_a_guest_whose_kernel_kills_over_and_over_lacks_memory() -> None:
    found = lacks_memory(killed(MOST_KILLS), memory=96)
    assert found
    assert "96 MiB" in found.where
    assert "systemd-network" in found.where
    assert "vmsnap_memory" in found.hint


def test_a_few_kills_and_those_of_a_control_group_are_the_guests_affair() -> None:
    assert lacks_memory(killed(MOST_KILLS - 1), memory=96) is None
    assert lacks_memory(killed(50, "Memory cgroup out of memory: Killed process"), memory=96) is None


def test_an_older_kernels_words_count() -> None:
    assert lacks_memory(killed(MOST_KILLS, "Out of memory: Kill process"), memory=96)


def test_a_process_whose_name_has_brackets_of_its_own_is_named_whole() -> None:
    text = killed(MOST_KILLS).replace("systemd-network", "(udev-worker)")
    found = lacks_memory(text, memory=96)
    assert found
    assert "among them (udev-worker)" in found.where


def test_a_guest_that_is_reset_over_and_over_will_not_come_up() -> None:
    assert resets_itself(MOST_RESETS - 1) is None
    found = resets_itself(MOST_RESETS)
    assert found
    assert "panic=0" in found.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OVMF + NO_ENTRY + "Not Found\r\n" + MENU, "the firmware (UEFI) found nothing to boot"),
        (
            OVMF + NO_ENTRY + "Access Denied\r\n" + MENU + "\x1b[2JBoot Manager Menu",
            "Secure Boot refused its boot loader",
        ),
    ],
)
def test_uefi_that_gives_up_has_done_so_whatever_it_shows_next(text: str, words: str) -> None:
    found = uefi_gave_up(text)
    assert found
    assert found.where == words


def test_uefi_that_tries_another_entry_has_not_given_up() -> None:
    assert uefi_gave_up(OVMF + NO_ENTRY + "Not Found\r\nBdsDxe: starting Boot0002\r\n") is None
