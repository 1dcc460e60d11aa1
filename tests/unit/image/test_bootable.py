"""What a firmware could start, by a disk's first sectors."""

from __future__ import annotations

import os
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import ImageError
from pytest_vmsnap.image import provide
from pytest_vmsnap.image.bootable import EFI_SYSTEM_GUID, HEAD_BYTES, boot_problem
from pytest_vmsnap.model import ImageRequest

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.model import Firmware
    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.store import Store

LINUX_GUID = bytes.fromhex("af3dc60f838472478e793d69d8477de4")
CODE = b"\xeb\x63\x90"


def head(*parts: tuple[int, bytes]) -> bytes:
    data = bytearray(HEAD_BYTES)
    for offset, content in parts:
        data[offset : offset + len(content)] = content
    return bytes(data)


def signed(kind: int = 0) -> tuple[tuple[int, bytes], ...]:
    return ((446 + 4, bytes([kind])), (510, b"\x55\xaa"))


def gpt(*kinds: bytes, sector: int = 512) -> tuple[tuple[int, bytes], ...]:
    header = b"EFI PART".ljust(72, b"\0") + struct.pack("<QII", 2, 128, 128)
    entries = b"".join(kind.ljust(128, b"\1") for kind in kinds)
    return ((sector, header), (2 * sector, entries))


@pytest.mark.parametrize(
    "disk",
    [
        head((0, CODE), *signed(0x83)),
        head((0, CODE), *signed(0xEE), *gpt(LINUX_GUID, EFI_SYSTEM_GUID)),
        head((0, CODE), (510, b"\x55\xaa")),  # a boot sector that knows of no partitions
    ],
)
def test_a_boot_sector_with_code_may_boot(disk: bytes) -> None:
    assert boot_problem(disk, "bios") is None


UEFI_ALONE = [
    head(*signed(0xEE), *gpt(LINUX_GUID, EFI_SYSTEM_GUID)),
    head(*signed(0xEE), *gpt(LINUX_GUID, EFI_SYSTEM_GUID, sector=4096)),
    head(*signed(0xEF)),
]
BOTH = head((0, CODE), *signed(0xEE), *gpt(LINUX_GUID, EFI_SYSTEM_GUID))
BIOS_ALONE = head((0, CODE), *signed(0x83))


@pytest.mark.parametrize("disk", UEFI_ALONE)
def test_a_disk_for_uefi_alone_is_not_booted_with_bios(disk: bytes) -> None:
    assert boot_problem(disk, "uefi") is None
    found = boot_problem(disk, "bios")
    assert found
    assert "boots with UEFI only" in found[0]
    assert "vmsnap_firmware" in found[1]


def test_a_disk_for_bios_alone_is_not_booted_with_uefi() -> None:
    found = boot_problem(BIOS_ALONE, "uefi")
    assert found
    assert (
        found[0]
        == "firmware=uefi, and it boots with BIOS only: it has a boot sector, but no EFI system partition"
    )
    assert "vmsnap_firmware" in found[1]
    empty = boot_problem(head(), "uefi-secure")
    assert empty
    assert "firmware=uefi-secure, and it is empty" in empty[0]


@pytest.mark.parametrize(
    ("disk", "wanted", "expected"),
    [
        (UEFI_ALONE[0], None, "uefi"),
        (BOTH, None, "bios"),
        (BIOS_ALONE, None, "bios"),
        (BOTH, "uefi", "uefi"),
        (UEFI_ALONE[0], "uefi-secure", "uefi-secure"),
    ],
)
def test_the_image_decides_the_firmware_unless_the_user_does(
    tmp_path: Path, store: Store, progress: Progress, disk: bytes, wanted: Firmware | None, expected: str
) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(disk)
    request = ImageRequest(image=str(path), root=tmp_path, firmware=wanted)
    assert provide(request, store=store, progress=progress).firmware == expected


@pytest.mark.parametrize(
    ("disk", "words"),
    [
        (head(), "is empty"),
        (head((0, os.urandom(500))), "neither a boot sector nor an EFI system partition"),
        (head(*signed(0x83)), "its boot sector holds no code"),
        (head(*signed(0xEE), *gpt(LINUX_GUID)), "its boot sector holds no code"),
    ],
)
def test_what_has_neither_says_what_was_looked_for(disk: bytes, words: str) -> None:
    found = boot_problem(disk, "bios")
    assert found
    assert words in found[0]
    assert "vmsnap_kernel" in found[1]


@pytest.mark.parametrize(
    ("disk", "words"),
    [
        (head((0x438, b"\x53\xef")), "an ext2, ext3 or ext4 file system"),
        (head((0x8001, b"CD001")), "the file system of a CD"),
    ],
)
def test_a_file_system_without_a_boot_loader_is_named(disk: bytes, words: str) -> None:
    found = boot_problem(disk, "bios")
    assert found
    assert words in found[1]


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
@pytest.mark.parametrize("content", ["random", "empty"])
def test_an_image_that_cannot_boot_is_refused_unless_it_is_booted_directly(
    tmp_path: Path, store: Store, progress: Progress, kind: str, content: str
) -> None:
    plain, path = tmp_path / "plain", tmp_path / "disk.img"
    first = os.urandom(510) + b"\0\0" + os.urandom(999) if content == "random" else bytes(HEAD_BYTES)
    plain.write_bytes(first + b"x" * HEAD_BYTES)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", kind, plain, path], check=True)
    with pytest.raises(ImageError, match=r"disk\.img cannot boot: .*55 AA at 510"):
        provide(ImageRequest(image=str(path), root=tmp_path), store=store, progress=progress)
    kernel = tmp_path / "kernel"
    kernel.write_bytes(b"x")
    request = ImageRequest(image=str(path), root=tmp_path, kernel=str(kernel))
    assert provide(request, store=store, progress=progress).disk == path
    assert path.stat().st_size < 1 << 20


def test_of_a_large_image_the_beginning_is_read(tmp_path: Path, store: Store, progress: Progress) -> None:
    path = tmp_path / "large.img"
    path.write_bytes(head((0, CODE), *signed(0x83)))
    os.truncate(path, 1 << 40)
    assert provide(ImageRequest(image=str(path), root=tmp_path), store=store, progress=progress).disk == path
