from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import HostError
from pytest_vmsnap.fork.ram_section import Content, insert

if TYPE_CHECKING:
    from pathlib import Path

HEADER = struct.pack(">II", 0x5145564D, 3)
DEVICE = b"\x04" + struct.pack(">I", 1) + b"\x05timer" + struct.pack(">II", 0, 2) + bytes(24)
FOOTER = b"\x7e" + struct.pack(">I", 1)
PAGE = bytes(range(256)) * 16


@pytest.fixture
def content(tmp_path: Path) -> Content:
    """Three pages in two files: one of numbers, one of zeros, one of numbers."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(PAGE + bytes(4096))
    second.write_bytes(PAGE)
    return Content(name="0000:00:02.0/vga.vram", size=3 * 4096, files=(first, second))


@pytest.mark.parametrize("footer", [FOOTER, b""], ids=["with footers", "without"])
def test_blocks_become_a_section_ahead_of_the_devices(tmp_path: Path, content: Content, footer: bytes) -> None:
    stream = tmp_path / "device-state"
    stream.write_bytes(HEADER + DEVICE + footer + b"\0")
    insert(stream, [content])
    number = struct.pack(">I", 0x7FFFFFF0)
    name = b"\x15" + b"0000:00:02.0/vga.vram"
    assert stream.read_bytes() == b"".join(
        [
            HEADER,
            b"\x04" + number + b"\x03ram" + struct.pack(">II", 0, 4),
            struct.pack(">Q", 3 * 4096 | 0x04) + name + struct.pack(">QQ", 3 * 4096, 0),
            struct.pack(">Q", 0x08) + name + PAGE,
            struct.pack(">Q", 4096 | 0x02 | 0x20) + b"\0",
            struct.pack(">Q", 8192 | 0x08 | 0x20) + PAGE,
            struct.pack(">Q", 0x10),
            b"\x7e" + number if footer else b"",
            DEVICE + footer + b"\0",
        ]
    )


def test_a_block_of_which_too_little_was_read_is_refused(tmp_path: Path, content: Content) -> None:
    stream = tmp_path / "device-state"
    stream.write_bytes(HEADER + DEVICE + b"\0")
    larger = Content(name="large", size=4 * 4096, files=content.files)
    with pytest.raises(HostError, match="read 12288 bytes of the RAM block large instead of 16384"):
        insert(stream, [larger])


@pytest.mark.parametrize("data", [b"", HEADER, HEADER + DEVICE, struct.pack(">II", 0x5145564D, 2) + DEVICE])
def test_what_is_no_stream_is_refused(tmp_path: Path, content: Content, data: bytes) -> None:
    stream = tmp_path / "device-state"
    stream.write_bytes(data[:-1] + b"\1" if data else data)
    with pytest.raises(HostError, match="not a migration stream of version 3"):
        insert(stream, [content])
