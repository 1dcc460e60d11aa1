"""Captures, taken apart as the format says."""

from __future__ import annotations

import struct

from pytest_vmsnap.network import pcapng


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    """Type and body of each block; both lengths of a block are the same."""
    found, at = [], 0
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert length % 4 == 0
        assert struct.unpack_from("<I", data, at + length - 4) == (length,)
        found.append((kind, data[at + 8 : at + length - 4]))
        at += length
    return found


def options(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at < len(data):
        code, length = struct.unpack_from("<HH", data, at)
        if not code:
            break
        found[code] = data[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4
    return found


def test_the_head_has_an_interface_for_each_machine() -> None:
    section, *interfaces = blocks(pcapng.header(["primary", "b"]))
    assert section[0] == 0x0A0D0D0A
    assert struct.unpack_from("<IHH", section[1]) == (0x1A2B3C4D, 1, 0)
    assert [kind for kind, _ in interfaces] == [1, 1]
    assert [options(body[8:])[2] for _, body in interfaces] == [b"primary", b"b"]
    assert [struct.unpack_from("<H", body)[0] for _, body in interfaces] == [1, 1]  # Ethernet


def test_a_packet_has_its_time_its_content_and_its_comment() -> None:
    frame = bytes(range(61))
    ((kind, body),) = blocks(pcapng.packet(1, (5 << 32) + 7, frame, "dropped: cut"))
    assert kind == 6
    assert struct.unpack_from("<IIIII", body) == (1, 5, 7, 61, 61)
    assert body[20:81] == frame
    assert options(body[84:]) == {1: b"dropped: cut"}


def test_a_packet_without_a_comment_has_no_options() -> None:
    ((_, body),) = blocks(pcapng.packet(0, 0, bytes(60)))
    assert len(body) == 80
