"""Check in the first sectors of a disk image whether a machine can boot from it, and with which firmware.

UEFI specification, "GUID Partition Table (GPT) Disk Layout" and "Protective MBR"; the boot signature is from
the BIOS Boot Specification, and is all that SeaBIOS checks (src/boot.c).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ImageError
from pytest_vmsnap.image import commands
from pytest_vmsnap.image.inspection import INSTALL_QEMU_IMG

if TYPE_CHECKING:
    from pytest_vmsnap.image.inspection import Disk
    from pytest_vmsnap.model import Firmware

HEAD_BYTES = 64 << 10  # covers both kinds of partition table and the magics in CONTENTS
SIGNATURE = slice(510, 512)
BOOT_SIGNATURE = b"\x55\xaa"
CODE = slice(0, 440)  # ends before the disk's signature and its partitions
PARTITIONS = range(446, 510, 16)
TYPE = 4  # offset in an MBR entry
PROTECTIVE, EFI_SYSTEM = 0xEE, 0xEF
GPT_MAGIC = b"EFI PART"
SECTOR_SIZES = (512, 4096)
EFI_SYSTEM_GUID = bytes.fromhex("28732ac11ff8d211ba4b00a0c93ec93b")  # C12A7328-F81F-11D2-BA4B-00A0C93EC93B
CONTENTS = (  # what an image without a boot sector may hold: offset, magic, words
    (0x438, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
    (0, b"XFSB", "an XFS file system"),
    (0, b"hsqs", "a squashfs file system"),
    (0x8001, b"CD001", "the file system of a CD (ISO 9660)"),
)
LOOKED_FOR = "looked for: a boot sector (the bytes 55 AA at 510), and an EFI system partition (GPT or MBR)"
DIRECTLY = "vmsnap_kernel and vmsnap_initrd boot a system that has no boot loader"


def firmware_for(disk: Disk, wanted: Firmware | None) -> Firmware:
    """The firmware that boots from `disk`: `wanted`, or if None, UEFI only if BIOS cannot.

    Raises `ImageError` if it cannot boot from it.
    """
    head = _head(disk)
    if wanted is None:
        wanted = "uefi" if boot_problem(head, "bios") and _has_efi_partition(head) else "bios"
    if trouble := boot_problem(head, wanted):
        what, hint = trouble
        raise ImageError(f"the image {disk.path} cannot boot: {what}", hint=hint)
    return wanted


def boot_problem(head: bytes, firmware: Firmware) -> tuple[str, str] | None:
    """Why `firmware` cannot boot a disk that begins with `head`, and what to do; None if it may."""
    if firmware == "bios":
        return _bios_problem(head)
    if _has_efi_partition(head):
        return None
    what, hint = _bios_problem(head) or (
        "it boots with BIOS only: it has a boot sector, but no EFI system partition",
        "leave vmsnap_firmware out, or use an image of the distribution that supports UEFI",
    )
    return f"firmware={firmware}, and {what}", hint


def _bios_problem(head: bytes) -> tuple[str, str] | None:
    signed = head[SIGNATURE] == BOOT_SIGNATURE
    if signed and any(head[CODE]):
        return None
    if _has_efi_partition(head):
        return (
            "it boots with UEFI only: it has an EFI system partition, but no boot sector with code for BIOS",
            "leave vmsnap_firmware out, or set it to uefi",
        )
    if signed:
        return "its boot sector holds no code, and it has no EFI system partition", _advice(head)
    if not any(head):
        return f"it is empty, its first {len(head)} bytes are all zero ({LOOKED_FOR})", _advice(head)
    return f"it has neither a boot sector nor an EFI system partition ({LOOKED_FOR})", _advice(head)


def _advice(head: bytes) -> str:
    for offset, magic, words in CONTENTS:
        if head[offset : offset + len(magic)] == magic:
            return f"it holds {words} without a boot loader: {DIRECTLY}"
    return f"check that it is the right file and complete; {DIRECTLY}"


def _has_efi_partition(head: bytes) -> bool:
    if head[SIGNATURE] == BOOT_SIGNATURE and any(head[entry + TYPE] == EFI_SYSTEM for entry in PARTITIONS):
        return True
    return any(
        head[size : size + len(GPT_MAGIC)] == GPT_MAGIC and _lists_efi(head, size) for size in SECTOR_SIZES
    )


def _lists_efi(head: bytes, sector: int) -> bool:
    """Whether a GPT on a disk with sectors of `sector` bytes lists an EFI system partition."""
    header = head[sector : 2 * sector]
    begin = int.from_bytes(header[72:80], "little") * sector
    count, size = (int.from_bytes(header[place : place + 4], "little") for place in (80, 84))
    end = min(len(head), begin + count * max(size, 1))
    return any(head[entry : entry + 16] == EFI_SYSTEM_GUID for entry in range(begin, end, max(size, 16)))


def _head(disk: Disk) -> bytes:
    """The first bytes of the disk as the guest sees them."""
    with tempfile.TemporaryDirectory(prefix="vmsnap-") as directory:
        target = Path(directory, "head")
        commands.run(
            [
                *("qemu-img", "dd", "-U", "-f", disk.format, "-O", "raw", "bs=512"),
                *(f"count={HEAD_BYTES >> 9}", f"if={disk.path}", f"of={target}"),
            ],
            failed=f"the image {disk.path} cannot be read",
            install=INSTALL_QEMU_IMG,
        )
        return target.read_bytes().ljust(HEAD_BYTES, b"\0")
