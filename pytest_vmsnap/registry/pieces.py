"""The pieces of files: what a registry stores of them.

A piece is a zstd frame (RFC 8878) of a header and data. The header has the number of ranges and that of copies
(u32 each); for each range its offset in the file (u64) and its length (u32); for each copy its offset in the
file (u64), its length (u32), the number of the source (u16) and the offset there (u64); all little-endian. The
data of the ranges follows. Holes and pages of zeros are in neither. A source is a file that the puller
already has (see `known_pages`).
"""

from __future__ import annotations

import os
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import RegistryError
from pytest_vmsnap.registry.known_pages import PAGE
from pytest_vmsnap.store import extents

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pytest_vmsnap.registry.known_pages import KnownPages

PIECE_BYTES = 16 << 20  # of the file
LONGEST_PIECE = PIECE_BYTES + (1 << 20)  # bytes, packed or not, with its header
MOST_PLACES = LONGEST_PIECE // 512  # ranges and copies of a piece
ZERO_PAGE = bytes(PAGE)
LEVEL = 6  # of zstd
HEAD, RANGE, COPY = struct.Struct("<II"), struct.Struct("<QI"), struct.Struct("<QIHQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedPiece:
    """A piece: its `data`, its `length` in bytes uncompressed, and how many bytes are `copied` from sources."""

    data: bytes
    length: int
    copied: int


def spans(path: Path) -> Iterator[tuple[int, int]]:
    """Start and end of each part of the file at `path` that is a piece: those without data are left out."""
    last = -1
    with path.open("rb") as file:
        for start, end in extents(file.fileno()):
            for number in range(max(start // PIECE_BYTES, last + 1), (end - 1) // PIECE_BYTES + 1):
                last = number
                yield number * PIECE_BYTES, (number + 1) * PIECE_BYTES


def packed(path: Path, span: tuple[int, int], known: KnownPages) -> PackedPiece | None:
    """The piece of the file at `path` from the start to the end of `span`; None if all of it is zero."""

    def data() -> Iterator[tuple[int, bytes]]:
        with path.open("rb") as file:
            for first, past in extents(file.fileno(), *span):
                file.seek(first)
                yield first, file.read(past - first)

    return packed_data(data(), known)


def packed_data(data: Iterable[tuple[int, bytes]], known: KnownPages) -> PackedPiece | None:
    """The piece with `data`, each at its offset, without what is `known`; None if all of it is zero."""
    ranges: list[tuple[int, int]] = []
    copies: list[tuple[int, int, int, int]] = []
    pages: list[bytes] = []
    for first, read in data:
        for at in range(0, len(read), PAGE):
            page = read[at : at + PAGE]
            if page == ZERO_PAGE[: len(page)]:
                continue
            place = first + at
            if found := known.find(page):
                _add_copy(copies, place, *found)
            else:
                if ranges and sum(ranges[-1]) == place:
                    ranges[-1] = (ranges[-1][0], ranges[-1][1] + len(page))
                else:
                    ranges.append((place, len(page)))
                pages.append(page)
    if not ranges and not copies:
        return None
    head = [HEAD.pack(len(ranges), len(copies))]
    head += [RANGE.pack(*each) for each in ranges]
    head += [COPY.pack(*each) for each in copies]
    whole = b"".join([*head, *pages])
    copied = sum(length for _, length, _, _ in copies)
    return PackedPiece(data=zstd.compress(whole, level=LEVEL), length=len(whole), copied=copied)


def _add_copy(copies: list[tuple[int, int, int, int]], place: int, source: int, offset: int) -> None:
    """Note that the page at `place` is at `offset` of a source; it may go on where the last copy ends."""
    if copies:
        before, length, same, start = copies[-1]
        if (before + length, same, start + length) == (place, source, offset):
            copies[-1] = (before, length + PAGE, same, start)
            return
    copies.append((place, PAGE, source, offset))


def unpack(
    piece: bytes,
    length: int,
    target: int,
    size: int,
    *,
    copied: int,
    sources: Sequence[int | None],
) -> int:
    """Write the data of `piece` to the file descriptor `target`, whose file has `size` bytes.

    `length` is what the piece has uncompressed, and `copied` bytes come from `sources`: file descriptors, None
    for one that is not there. Returns the number of bytes written. Raises `RegistryError` if the piece is not
    as `packed` returns it.
    """
    try:
        decompressor = zstd.ZstdDecompressor()
        whole = decompressor.decompress(piece, max_length=length + 1)  # of a frame that holds more, not all
        if len(whole) != length or not decompressor.eof or decompressor.unused_data:
            raise RegistryError(f"a piece does not have the {length} bytes that it should have")
        count, copy_count = HEAD.unpack_from(whole)
        if count + copy_count > MOST_PLACES:
            raise RegistryError(f"a piece is not valid: it has more than {MOST_PLACES} ranges")
        ranges = [RANGE.unpack_from(whole, HEAD.size + number * RANGE.size) for number in range(count)]
        begin = HEAD.size + count * RANGE.size
        copies = [COPY.unpack_from(whole, begin + number * COPY.size) for number in range(copy_count)]
    except (zstd.ZstdError, struct.error) as error:
        raise RegistryError(f"a piece is not valid: {error}") from error
    view = memoryview(whole)[begin + copy_count * COPY.size :]
    places = [*ranges, *((offset, part) for offset, part, _, _ in copies)]
    if sum(part for _, part in ranges) != len(view) or any(
        not part or offset + part > size for offset, part in places
    ):
        raise RegistryError("a piece is not valid: its ranges are not those of its file")
    if sum(part for _, part in places) > LONGEST_PIECE or sum(part for _, part, _, _ in copies) != copied:
        raise RegistryError("a piece is not valid: it is for more than it says")
    at = 0
    for offset, part in ranges:
        _write(target, view[at : at + part], offset)
        at += part
    for offset, part, source, start in copies:
        _write(target, memoryview(_read(sources, source, start, part)), offset)
        at += part
    return at


def _read(sources: Sequence[int | None], source: int, start: int, length: int) -> bytes:
    descriptor = sources[source] if source < len(sources) else None
    data = b"" if descriptor is None or start >> 63 else os.pread(descriptor, length, start)
    if len(data) != length:
        raise RegistryError("a piece is not valid: it copies what is not there")
    return data


def _write(target: int, data: memoryview, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(target, data[done:], offset + done)
