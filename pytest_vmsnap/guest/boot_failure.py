"""What a guest prints on its serial console when its boot has come to a dead end.

Pure functions of the console's text. The texts are those of SeaBIOS (src/boot.c), GRUB 2 (boot/i386/pc/boot.S,
kern/rescue_reader.c, normal/main.c), syslinux (mbr/), initramfs-tools (scripts/functions), dracut
(dracut-emergency.sh), mkinitcpio and Alpine's mkinitfs (their init), systemd (emergency.service,
rescue.service) with util-linux's sulogin(8), and of the initrd that this plugin makes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# What terminals take for themselves (ECMA-48): colours, places of the cursor, titles.
CONTROL_SEQUENCES = re.compile(
    r"\x1b(?:\[[0-9;?!]*[ -/]*[@-~]|\][^\x07\x1b]{0,256}(?:\x07|\x1b\\)|[()][A-Z0-9]|[=>c78])"
)
# The kernel's own lines come when they like, behind a prompt too.
KERNEL_LINES = re.compile(r"\[ *\d+\.\d{6}\][^\n]*(?:\n|\Z)")
# Linux, mm/oom_kill.c; a name of up to 15 characters may have brackets of its own: ((udev-worker))
OUT_OF_MEMORY = re.compile(r"Out of memory: Kill(?:ed)? process \d+ \((.{1,15}?)\)[ ,]")
# As often as systemd starts a service that fails before it gives it up (systemd-system.conf(5),
# DefaultStartLimitBurst). One or two may be processes that the boot does without.
MOST_KILLS = 5
MOST_RESETS = 30  # libvirt told of one reset up to six times (9.0, qemu:///session)
END_CHARACTERS = 16 << 10  # of a console, which are looked at
LAST_LINES = 60  # in which the reason for a shell is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class BootFailure:
    """Where a boot has come to its end (`where`, a clause about the guest), and what to look at (`hint`)."""

    where: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _DeadEnd:
    """`end` matches the end of the console's text; `before` has to be in its last lines as well.

    With `in_linux` a kernel runs, whose lines may follow.
    """

    end: re.Pattern[str]
    failure: BootFailure
    before: re.Pattern[str] = re.compile("")
    in_linux: bool = True


_SHELL_PROMPT = re.compile(r"(?:^|\n)[^\n]{0,60}[#$] *\Z")
_MAINTENANCE = re.compile(
    r"(?:Press Enter|Give root password) for (?:system )?maintenance\s*"  # "system" since util-linux 2.41
    r"(?:\(or [^\n)]*(?:Control|Ctrl)-D[^\n)]*\): *|: *)\Z"
    r"|root account is locked\.\s*See sulogin\(8\)[^\n]*\s*Press Enter to continue\.?\s*\Z",
    re.IGNORECASE,
)
_DRACUT = re.compile(r"rdsosreport|[Ee]ntering emergency mode\. Exit the shell to continue")
_NO_ROOT = (
    "the initramfs did not find or mount the root file system: look at root= on the kernel's command line, and "
    "whether the initramfs has the disk's driver (virtio_blk) and the file system's"
)
_NO_BOOT_LOADER = "look at the image: does it have a boot loader for BIOS, and a system on its first disk?"
_GRUB_LOST = (
    "GRUB did not find its own files on the disk: was the image copied in part, or were its partitions "
    "changed? grub-install writes GRUB anew"
)

_DEAD_ENDS = (
    _DeadEnd(
        end=re.compile(r"(?:^|\n)No bootable device\.\s*\Z"),
        failure=BootFailure(where="the firmware (BIOS) found nothing to boot", hint=_NO_BOOT_LOADER),
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
        failure=BootFailure(where="it stands at GRUB's rescue prompt", hint=_GRUB_LOST),
        in_linux=False,
    ),
    _DeadEnd(
        end=re.compile(r"grub> *\Z"),
        failure=BootFailure(
            where="it stands at GRUB's prompt",
            hint="GRUB has no configuration (grub.cfg) to go by: grub-mkconfig writes it anew",
        ),
        in_linux=False,
    ),
    _DeadEnd(
        end=re.compile(r"\(initramfs\) *\Z"),
        failure=BootFailure(where="it stands in the shell of its initramfs", hint=_NO_ROOT),
    ),
    _DeadEnd(
        end=_SHELL_PROMPT,
        before=re.compile(
            r"initrd: no ext4 file system on|emergency recovery shell launched"
            r"|dropped into an emergency shell|Dropping to a shell"
        ),
        failure=BootFailure(where="it stands in the shell of its initramfs", hint=_NO_ROOT),
    ),
    _DeadEnd(
        end=re.compile(rf"{_MAINTENANCE.pattern}|(?:^|\n)[^\n]{{0,60}}[#$] *\Z", re.IGNORECASE),
        before=_DRACUT,
        failure=BootFailure(where="it stands in the emergency shell of its initramfs (dracut)", hint=_NO_ROOT),
    ),
    _DeadEnd(
        end=_MAINTENANCE,
        before=re.compile(r"(?:You are in|Welcome to) rescue mode", re.IGNORECASE),
        failure=BootFailure(
            where="it stands in systemd's rescue mode",
            hint="the kernel's command line or the default target asks for it (systemd.unit=, single, 1)",
        ),
    ),
    _DeadEnd(
        end=_MAINTENANCE,
        failure=BootFailure(
            where="it stands in systemd's emergency mode",
            hint="something that the boot cannot do without has failed, often a file system of /etc/fstab that "
            "is not there (nofail lets it be missing); or the kernel's command line asks for it",
        ),
    ),
)


def standstill(text: str) -> BootFailure | None:
    """The dead end that the last thing in a console's `text` is; None where there is none.

    A guest that goes on prints more: only one whose text stays as it is has failed.
    """
    shown = readable(text[-END_CHARACTERS:])
    linux = without_kernel_lines(shown)
    recent = "\n".join(linux.rstrip().splitlines()[-LAST_LINES:])
    for dead_end in _DEAD_ENDS:
        if dead_end.end.search(linux if dead_end.in_linux else shown) and dead_end.before.search(recent):
            return dead_end.failure
    return None


def kills(text: str) -> int:
    """How many processes the kernel says in a console's `text` that it killed for want of memory.

    A control group that comes to its own limit ("Memory cgroup out of memory") does not count.
    """
    return len(OUT_OF_MEMORY.findall(text))


def lacks_memory(text: str, *, memory: int) -> BootFailure | None:
    """Whether the kernel of a guest of `memory` MiB kills processes over and over, by a console's `text`."""
    killed = OUT_OF_MEMORY.findall(text)
    if len(killed) < MOST_KILLS:
        return None
    names = ", ".join(dict.fromkeys(killed[-MOST_KILLS:]))
    return BootFailure(
        where=f"its memory of {memory} MiB is not enough: while it booted, its kernel killed {len(killed)} "
        f"processes for want of memory, {names} among them",
        hint="give it more: vmsnap_memory (--vmsnap-memory), or memory= in its marker",
    )


def resets_itself(resets: int) -> BootFailure | None:
    """Whether a guest that was reset that often in one boot will go on like that."""
    if resets < MOST_RESETS:
        return None
    return BootFailure(
        where=f"it was reset {resets} times while it booted",
        hint="its kernel or its boot loader crashes, or reboots after a panic (panic= on the kernel's command "
        "line; panic=0 lets it stand with its last words)",
    )


def readable(text: str) -> str:
    """A console's `text` without what only a terminal makes sense of."""
    return CONTROL_SEQUENCES.sub("", text).replace("\r", "")


def without_kernel_lines(text: str) -> str:
    """A console's `text` without the kernel's own lines."""
    return KERNEL_LINES.sub("", text)
