"""What a guest prints on its serial console when its boot has come to a dead end.

Pure functions of the console's text. The texts are those of SeaBIOS (src/boot.c), EDK II
(MdeModulePkg/Universal/BdsDxe, ShellPkg), GRUB 2 (boot/i386/pc/boot.S,
kern/rescue_reader.c, normal/main.c), syslinux (mbr/), initramfs-tools (scripts/functions), dracut
(dracut-emergency.sh), mkinitcpio and Alpine's mkinitfs (their init), systemd (emergency.service,
rescue.service) and Debian's initscripts with util-linux's sulogin(8), and of the initrd that this plugin makes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Control sequences of terminals (ECMA-48): colours, cursor positions, titles.
CONTROL_SEQUENCES = re.compile(
    r"\x1b(?:\[[0-9;?!]*[ -/]*[@-~]|\][^\x07\x1b]{0,256}(?:\x07|\x1b\\)|[()][A-Z0-9]|[=>c78])"
)
# The kernel's own lines come at any time, also after a prompt.
KERNEL_LINES = re.compile(r"\[ *\d+\.\d{6}\][^\n]*(?:\n|\Z)")
# Linux, mm/oom_kill.c; a name has up to 15 characters, and may have its own brackets: ((udev-worker))
OUT_OF_MEMORY = re.compile(r"Out of memory: Kill(?:ed)? process \d+ \((.{1,15}?)\)[ ,]")
# As often as systemd starts a failing service before it gives up (systemd-system.conf(5),
# DefaultStartLimitBurst). One or two may be processes that the boot does not need.
MOST_KILLS = 5
MOST_RESETS = 30  # libvirt reports one reset up to six times (9.0, qemu:///session)
END_CHARACTERS = 16 << 10  # at the end of a console, which are searched
LAST_LINES = 60  # which are searched for the reason for a shell


@dataclass(frozen=True, slots=True, kw_only=True)
class BootFailure:
    """Where a boot got stuck (`where`, a clause about the guest), and what to check (`hint`)."""

    where: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _DeadEnd:
    """A dead end: `end` matches the end of the console's text, and `before` something in its last lines.

    With `in_linux` a kernel runs, and its lines may follow.
    """

    end: re.Pattern[str]
    failure: BootFailure
    before: re.Pattern[str] = re.compile("")
    in_linux: bool = True


_SHELL_PROMPT = re.compile(r"(?:^|\n)[^\n]{0,60}[#$] *\Z")
_MAINTENANCE = re.compile(
    r"(?:Press Enter|(?:Give|Enter) root password) for (?:system )?maintenance\s*"  # "system" since 2.41
    r"(?:\(or [^\n)]*(?:Control|Ctrl)-D[^\n)]*\): *|: *)\Z"
    r"|root account is locked\.\s*See sulogin\(8\)[^\n]*\s*Press Enter to continue\.?\s*\Z",
    re.IGNORECASE,
)
_DRACUT = re.compile(r"rdsosreport|[Ee]ntering emergency mode\. Exit the shell to continue")
_NO_ROOT = (
    "the initramfs did not find or mount the root file system: check root= on the kernel's command line, and "
    "that the initramfs has the drivers of the disk (virtio_blk) and of the file system"
)
_NO_BOOT_LOADER = "check that the image has a boot loader for BIOS, and a system on its first disk"
_NO_EFI_LOADER = (
    "check that the image's EFI system partition has a boot loader for x86_64 (EFI/BOOT/BOOTX64.EFI, or what a "
    "boot variable names)"
)
# A key that is pressed now opens a menu, so this is no prompt that stays at the console's end.
_UEFI_GAVE_UP = re.compile(r"BdsDxe: No bootable option or device was found\.")
_UEFI_REFUSED = re.compile(r"BdsDxe: failed to (?:load|start) [^\n]*: (?:Access Denied|Security Violation)")
_GRUB_LOST = (
    "GRUB did not find its own files on the disk: check that the image is complete and that its partitions "
    "were not changed; grub-install installs GRUB again"
)

_DEAD_ENDS = (
    _DeadEnd(
        end=re.compile(r"(?:^|\n)No bootable device\.\s*\Z"),
        failure=BootFailure(where="the firmware (BIOS) found nothing to boot", hint=_NO_BOOT_LOADER),
        in_linux=False,
    ),
    _DeadEnd(
        end=re.compile(r"Shell> *\Z"),
        before=re.compile(r"startup\.nsh|UEFI Interactive Shell"),
        failure=BootFailure(
            where="the firmware (UEFI) found nothing to boot, and is at its own shell", hint=_NO_EFI_LOADER
        ),
        in_linux=False,
    ),
    _DeadEnd(
        end=re.compile(
            r"(?:Missing operating system|Operating system not found|Error loading operating system"
            r"|No bootable partition[^\n]*"
            r"|This is not a bootable disk\.[^\n]*(?:\s+press any key to try again ?\.*)?)[.!]?\s*\Z",
            re.IGNORECASE,
        ),
        failure=BootFailure(where="the disk's boot sector found no system to start", hint=_NO_BOOT_LOADER),
        in_linux=False,
    ),
    _DeadEnd(
        end=re.compile(r"GRUB (?:Geom|Hard Disk|Read) Error\s*\Z|GRUB Error\s*\Z"),
        failure=BootFailure(where="GRUB's boot sector cannot read the disk", hint=_GRUB_LOST),
        in_linux=False,
    ),
    _DeadEnd(
        end=re.compile(r"grub rescue> *\Z"),
        failure=BootFailure(where="it is stuck at GRUB's rescue prompt", hint=_GRUB_LOST),
        in_linux=False,
    ),
    _DeadEnd(
        end=re.compile(r"grub> *\Z"),
        failure=BootFailure(
            where="it is stuck at GRUB's prompt",
            hint="GRUB found no configuration (grub.cfg): write a new one with grub-mkconfig",
        ),
        in_linux=False,
    ),
    _DeadEnd(
        end=re.compile(r"\(initramfs\) *\Z"),
        failure=BootFailure(where="it is stuck in the shell of its initramfs", hint=_NO_ROOT),
    ),
    _DeadEnd(
        end=_SHELL_PROMPT,
        before=re.compile(
            r"initrd: no ext4 file system on|emergency recovery shell launched"
            r"|dropped into an emergency shell|Dropping to a shell"
        ),
        failure=BootFailure(where="it is stuck in the shell of its initramfs", hint=_NO_ROOT),
    ),
    _DeadEnd(
        end=re.compile(rf"{_MAINTENANCE.pattern}|(?:^|\n)[^\n]{{0,60}}[#$] *\Z", re.IGNORECASE),
        before=_DRACUT,
        failure=BootFailure(where="it is stuck in its initramfs's emergency shell (dracut)", hint=_NO_ROOT),
    ),
    _DeadEnd(
        end=_MAINTENANCE,
        before=re.compile(r"(?:You are in|Welcome to) rescue mode", re.IGNORECASE),
        failure=BootFailure(
            where="it is stuck in systemd's rescue mode",
            hint="the kernel's command line or the default target asks for it (systemd.unit=, single, 1)",
        ),
    ),
    _DeadEnd(
        end=_MAINTENANCE,
        before=re.compile(r"maintenance shell will now be started"),
        failure=BootFailure(
            where="it is stuck in the maintenance shell of its init",
            hint="the check or the mount of a file system failed (the console says which): check /etc/fstab, "
            "and that the image has the program that checks it (e2fsprogs, dosfstools)",
        ),
    ),
    _DeadEnd(
        end=_MAINTENANCE,
        failure=BootFailure(
            where="it is stuck in systemd's emergency mode",
            hint="a unit that the boot requires failed, often because a file system in /etc/fstab is missing "
            "(the option nofail makes it optional); or the kernel's command line asks for this mode",
        ),
    ),
)


def standstill(text: str) -> BootFailure | None:
    """Return the dead end that a console's `text` ends with, None if it does not end with one.

    A guest that goes on prints more: it has failed only if its text stays the same.
    """
    shown = readable(text[-END_CHARACTERS:])
    linux = without_kernel_lines(shown)
    recent = "\n".join(linux.rstrip().splitlines()[-LAST_LINES:])
    for dead_end in _DEAD_ENDS:
        if dead_end.end.search(linux if dead_end.in_linux else shown) and dead_end.before.search(recent):
            return dead_end.failure
    return None


def uefi_gave_up(text: str) -> BootFailure | None:
    """Return the failure if UEFI found nothing that it could start, according to a console's `text`."""
    if not _UEFI_GAVE_UP.search(text):
        return None
    if _UEFI_REFUSED.search(text):
        return BootFailure(
            where="Secure Boot refused its boot loader",
            hint="the boot loader is not signed with a key that the firmware trusts (Microsoft's, as that of "
            "shim): use a signed one, or firmware='uefi' without Secure Boot",
        )
    return BootFailure(where="the firmware (UEFI) found nothing to boot", hint=_NO_EFI_LOADER)


def kills(text: str) -> int:
    """Count the processes that the kernel killed for lack of memory, according to a console's `text`.

    A control group that reaches its own limit ("Memory cgroup out of memory") does not count.
    """
    return len(OUT_OF_MEMORY.findall(text))


def lacks_memory(text: str, *, memory: int) -> BootFailure | None:
    """Return the failure if the kernel of a guest with `memory` MiB keeps killing processes, None if not."""
    killed = OUT_OF_MEMORY.findall(text)
    if len(killed) < MOST_KILLS:
        return None
    names = ", ".join(dict.fromkeys(killed[-MOST_KILLS:]))
    return BootFailure(
        where=f"its memory of {memory} MiB is not enough: during the boot, its kernel ran out of memory and "
        f"killed {len(killed)} processes, among them {names}",
        hint="give it more memory: set vmsnap_memory (--vmsnap-memory), or memory= in its marker",
    )


def resets_itself(resets: int) -> BootFailure | None:
    """Return the failure if a guest was reset so often in one boot that it is in a loop, None if not."""
    if resets < MOST_RESETS:
        return None
    return BootFailure(
        where=f"it was reset {resets} times while it booted",
        hint="its kernel or its boot loader crashes, or reboots after a panic (panic= on the kernel's command "
        "line; with panic=0 it stops and leaves the panic on the console)",
    )


def readable(text: str) -> str:
    """Return a console's `text` without what only a terminal understands."""
    return CONTROL_SEQUENCES.sub("", text).replace("\r", "")


def without_kernel_lines(text: str) -> str:
    """Return a console's `text` without the kernel's own lines."""
    return KERNEL_LINES.sub("", text)
