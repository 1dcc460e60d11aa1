"""Captured frames as pcapng (IETF draft-ietf-opsawg-pcapng), which Wireshark, tshark and tcpdump read.

Runs in the switch's process: imports nothing but the standard library.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SECTION_HEADER, INTERFACE_DESCRIPTION, ENHANCED_PACKET = 0x0A0D0D0A, 1, 6
BYTE_ORDER = 0x1A2B3C4D
LENGTH_UNKNOWN = 0xFFFFFFFFFFFFFFFF
LINKTYPE_ETHERNET = 1
COMMENT, USER_APPLICATION, INTERFACE_NAME, TIME_RESOLUTION = 1, 4, 2, 9
NANOSECONDS = 9  # the resolution of a packet's time: ten to the minus nine


def header(machines: Sequence[str]) -> bytes:
    """The head of a capture: an interface for each of `machines`, on which its frames arrive at the switch."""
    section = struct.pack("<IHHQ", BYTE_ORDER, 1, 0, LENGTH_UNKNOWN)
    blocks = [_block(SECTION_HEADER, section + _options([(USER_APPLICATION, b"pytest-vmsnap")]))]
    for name in machines:
        options = _options([(INTERFACE_NAME, name.encode()), (TIME_RESOLUTION, bytes([NANOSECONDS]))])
        blocks.append(_block(INTERFACE_DESCRIPTION, struct.pack("<HHI", LINKTYPE_ETHERNET, 0, 0) + options))
    return b"".join(blocks)


def packet(machine: int, time_ns: int, frame: bytes, comment: str = "") -> bytes:
    """A block for a `frame` of the machine of that place, at `time_ns` (nanoseconds since 1970)."""
    body = struct.pack("<IIIII", machine, time_ns >> 32, time_ns & 0xFFFFFFFF, len(frame), len(frame))
    options = _options([(COMMENT, comment.encode())]) if comment else b""
    return _block(ENHANCED_PACKET, body + _padded(frame) + options)


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _options(options: Sequence[tuple[int, bytes]]) -> bytes:
    parts = [struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options]
    return b"".join(parts) + struct.pack("<HH", 0, 0)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
