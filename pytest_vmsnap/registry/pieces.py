"""The pieces of files: what a registry stores of them.

A piece is a zstd frame (RFC 8878) of a header and data. The header has the number of ranges (u32), and for
each its offset in the file (u64) and its length (u32), little-endian; the data of the ranges follows. Holes and
pages of zeros are in no range.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import RegistryError
from pytest_vmsnap.store import extents

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PIECE_BYTES = 16 << 20  # of the file
LONGEST_PIECE = PIECE_BYTES + (1 << 20)  # bytes, packed or not, with its header
PAGE = 4096
ZERO_PAGE = bytes(PAGE)
LEVEL = 6  # of zstd
HEAD, RANGE = struct.Struct("<I"), struct.Struct("<QI")


def spans(path: Path) -> Iterator[tuple[int, int]]:
    """Start and end of each part of the file at `path` that is a piece: those without data are left out."""
    last = -1
    with path.open("rb") as file:
        for start, end in extents(file.fileno()):
            for number in range(max(start // PIECE_BYTES, last + 1), (end - 1) // PIECE_BYTES + 1):
                last = number
                yield number * PIECE_BYTES, (number + 1) * PIECE_BYTES


def packed(path: Path, start: int, end: int) -> tuple[bytes, int] | None:
    """The piece of the file at `path` from `start` to `end`, and its length uncompressed.

    None if all of it is zero.
    """

    def data() -> Iterator[tuple[int, bytes]]:
        with path.open("rb") as file:
            for first, past in extents(file.fileno(), start, end):
                file.seek(first)
                yield first, file.read(past - first)

    return packed_data(data())


def packed_data(data: Iterable[tuple[int, bytes]]) -> tuple[bytes, int] | None:
    """The piece with `data`, each at its offset, and its length uncompressed; None if all of it is zero."""
    ranges: list[tuple[int, int]] = []
    pages: list[bytes] = []
    for first, read in data:
        for at in range(0, len(read), PAGE):
            page = read[at : at + PAGE]
            if page == ZERO_PAGE[: len(page)]:
                continue
            if ranges and sum(ranges[-1]) == first + at:
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + len(page))
            else:
                ranges.append((first + at, len(page)))
            pages.append(page)
    if not ranges:
        return None
    whole = b"".join([HEAD.pack(len(ranges)), *(RANGE.pack(*each) for each in ranges), *pages])
    return zstd.compress(whole, level=LEVEL), len(whole)


def unpack(piece: bytes, length: int, target: int, size: int) -> int:
    """Write the data of `piece` to the file descriptor `target`, whose file has `size` bytes.

    `length` is what the piece has uncompressed. Returns the number of bytes written. Raises `RegistryError` if
    the piece is not as `packed` returns it.
    """
    try:
        decompressor = zstd.ZstdDecompressor()
        whole = decompressor.decompress(piece, max_length=length + 1)  # of a frame that holds more, not all
        if len(whole) != length or not decompressor.eof or decompressor.unused_data:
            raise RegistryError(f"a piece does not have the {length} bytes that it should have")
        (count,) = HEAD.unpack_from(whole)
        ranges = [RANGE.unpack_from(whole, HEAD.size + number * RANGE.size) for number in range(count)]
    except (zstd.ZstdError, struct.error) as error:
        raise RegistryError(f"a piece is not valid: {error}") from error
    view = memoryview(whole)[HEAD.size + count * RANGE.size :]
    if sum(part for _, part in ranges) != len(view) or any(offset + part > size for offset, part in ranges):
        raise RegistryError("a piece is not valid: its ranges are not those of its file")
    at = 0
    for offset, part in ranges:
        done = 0
        while done < part:
            done += os.pwrite(target, view[at + done : at + part], offset + done)
        at += part
    return at
