"""Insert RAM blocks, as a section of QEMU's migration stream, into a stream that has only devices.

The stream: QEMU, "Migration framework", migration/savevm.c (save_section_header, save_section_footer,
qemu_save_device_state). The section ``ram``, version 4: migration/ram.c (ram_save_setup, save_zero_page,
ram_load_precopy, parse_ramblocks). ram_load takes the blocks that are listed and does not expect all of them.
In the list, an address follows the length of each block, because the stream is loaded with the capability
``x-ignore-shared``; QEMU compares the address only for the blocks that this capability leaves out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pytest_vmsnap.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

HEADER = struct.pack(">II", 0x5145564D, 3)  # QEMU_VM_FILE_MAGIC, QEMU_VM_FILE_VERSION
SECTION_FULL, SECTION_FOOTER, END_OF_STREAM = b"\x04", b"\x7e", b"\x00"
SECTION_ID = 0x7FFFFFF0  # QEMU counts its own from 0
INSTANCE, VERSION = 0, 4
ZERO, MEM_SIZE, PAGE, EOS, CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20  # RAM_SAVE_FLAG_...
PAGE_SIZE = 4096  # of x86
NOTHING = bytes(PAGE_SIZE)
PAGES_AT_ONCE = 256


class Block(Protocol):
    """Pages of a RAM block: its `name`, and its whole `size` in bytes."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """The pages to load, each with its offset in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """All of the RAM block `name`: its `size` in bytes, and the `files` with its content, in order.

    The size of each file is a multiple of 4 KiB.
    """

    name: str
    size: int
    files: tuple[Path, ...]

    def pages(self) -> Iterator[tuple[int, bytes]]:
        offset = 0
        for path in self.files:
            with path.open("rb") as reading:
                while chunk := reading.read(PAGES_AT_ONCE * PAGE_SIZE):
                    for start in range(0, len(chunk), PAGE_SIZE):
                        yield offset, chunk[start : start + PAGE_SIZE]
                        offset += PAGE_SIZE
        if offset != self.size:
            raise HostError(f"read {offset} bytes of the RAM block {self.name} instead of {self.size}")


def insert(stream: Path, contents: Sequence[Block]) -> None:
    """Insert `contents` before the devices in the file `stream`.

    Raises `HostError` if the file is not such a stream, or if the files of a block do not add up to its size.
    """
    data = stream.read_bytes()
    if not data.startswith(HEADER + SECTION_FULL) or not data.endswith(END_OF_STREAM):
        raise HostError(f"the device state in {stream} is not a migration stream of version 3")
    # the footer of the last section is a byte and a number of 4 bytes
    footers = data[-6:-5] == SECTION_FOOTER
    with stream.open("r+b") as writing:
        writing.seek(len(HEADER))
        for part in section(contents, footer=footers):
            writing.write(part)
        writing.write(data[len(HEADER) :])


def section(contents: Sequence[Block], *, footer: bool) -> Iterator[bytes]:
    """The section with `contents`, in parts; `footer` says whether it ends with a footer."""
    yield SECTION_FULL + struct.pack(">I", SECTION_ID) + _counted("ram") + struct.pack(">II", INSTANCE, VERSION)
    yield struct.pack(">Q", sum(content.size for content in contents) | MEM_SIZE)
    for content in contents:
        yield _counted(content.name) + struct.pack(">QQ", content.size, 0)
    for content in contents:
        yield from _pages(content)
    yield struct.pack(">Q", EOS)
    if footer:
        yield SECTION_FOOTER + struct.pack(">I", SECTION_ID)


def _pages(content: Block) -> Iterator[bytes]:
    name = _counted(content.name)
    known = 0
    for offset, page in content.pages():
        kind, data = (ZERO, b"\0") if page == NOTHING else (PAGE, page)
        yield struct.pack(">Q", offset | kind | known) + (b"" if known else name) + data
        known = CONTINUE


def _counted(name: str) -> bytes:
    encoded = name.encode()
    return bytes([len(encoded)]) + encoded
