"""Where a command's output goes and where its input comes from: in pieces, never whole in the host's memory.

What runs in a guest decides how much it prints, so nothing here grows with that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OUTPUT_LIMIT = 64 << 20  # bytes of a stream that are kept in memory, where nobody says otherwise
GATHERED = 1 << 20  # bytes that are gathered from small pieces
EDGE = 16 << 10  # bytes of the beginning and of the end of a stream that was too long
BEHIND_MARK = 16  # bytes behind a mark that are read, at most: " 255 died\n"


class Sink(Protocol):
    """Takes a stream in pieces, as they come."""

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more, so that the command is to be ended. What still comes is dropped."""

    def write(self, piece: bytes) -> None:
        """Take the next piece; never raises."""


class Captured:
    """Keeps a stream in memory up to `limit` bytes. Past that, only its beginning and its end are kept."""

    def __init__(self, limit: int = OUTPUT_LIMIT) -> None:
        self.limit = limit
        self.size = 0
        self._pieces: list[bytes] = []  # a growing bytearray would be copied as it grows
        self._data = bytearray()
        self._end = bytearray()

    @property
    def is_closed(self) -> bool:
        return self.size > self.limit

    def write(self, piece: bytes) -> None:
        self.size += len(piece)
        if not self.is_closed:
            self._data += piece
            if len(self._data) >= GATHERED:
                self._pieces.append(bytes(self._data))
                self._data.clear()
            return
        if not self._end:
            self._end = bytearray(b"".join(self._pieces[-1:]) + self._data)[-EDGE:]
            self._data = bytearray(b"".join(self._pieces[:1]) or self._data)[:EDGE]
            self._pieces.clear()
        self._end += piece[-EDGE:]
        del self._end[:-EDGE]

    def content(self) -> bytes:
        """All of it, or what is kept of it: its first and its last 16 KiB, and a line between them."""
        if not self.is_closed:
            return b"".join([*self._pieces, self._data])
        left_out = self.size - len(self._data) - len(self._end)
        if left_out <= 0:
            return bytes(self._data)
        return b"%s\n[... %d bytes left out ...]\n%s" % (self._data, left_out, self._end)


class LastBytes:
    """Keeps the last `limit` bytes of a stream, however long it is."""

    is_closed = False

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self.size = 0

    def write(self, piece: bytes) -> None:
        self.size += len(piece)
        self._data += piece
        if len(self._data) > 2 * self._limit:
            del self._data[: -self._limit]

    def content(self) -> bytes:
        """What is kept."""
        return bytes(self._data[-self._limit :])


class Discarded:
    """Drops a stream."""

    is_closed = False

    def write(self, piece: bytes) -> None:
        """Drop it."""


class Written:
    """Writes a stream to an open `file`; `failure` is what ended that, such as a full disk.

    `end` has the last bytes of it, for messages.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failure: OSError | None = None
        self.end = LastBytes(EDGE)

    @property
    def is_closed(self) -> bool:
        return self.failure is not None

    def write(self, piece: bytes) -> None:
        if self.failure is None:
            self.end.write(piece)
            view = memoryview(piece)
            try:
                while view:
                    view = view[self._file.write(view) :]
            except OSError as error:
                self.failure = error

    def content(self) -> bytes:
        """Nothing: it is in the file."""
        return b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Input of `size` bytes, which `open` gives in pieces; it may be opened once."""

    size: int
    open: Callable[[], Iterator[bytes]]


def source_of(data: bytes) -> Source:
    """`data` as a source."""
    return Source(size=len(data), open=lambda: iter((data,)))


def joined(first: bytes, second: Source) -> Source:
    """`first`, and `second` behind it."""

    def pieces() -> Iterator[bytes]:
        yield first
        yield from second.open()

    return Source(size=len(first) + second.size, open=pieces)


@dataclass(slots=True)
class MarkedStream:
    """A stream up to a `mark`, which goes to `sink` as it comes; what is behind the mark is dropped.

    `behind` are the first bytes behind the mark, `is_ended` whether the mark has come.
    """

    mark: bytes
    sink: Sink
    is_ended: bool = False
    behind: bytearray = field(default_factory=bytearray)
    _rest: bytearray = field(default_factory=bytearray)  # what may be the beginning of the mark

    def feed(self, piece: bytes) -> None:
        """Take what came next."""
        if self.is_ended:
            self.behind += piece[: max(0, BEHIND_MARK - len(self.behind))]
            return
        data = self._rest + piece
        at = data.find(self.mark)
        if at >= 0:
            self.sink.write(bytes(data[:at]))
            self.is_ended = True
            self.behind += data[at + len(self.mark) :][:BEHIND_MARK]
            self._rest.clear()
            return
        kept = _beginning_of(self.mark, data)
        if settled := len(data) - kept:
            self.sink.write(bytes(data[:settled]))
        self._rest = data[settled:]

    def flush(self) -> None:
        """The stream has ended without its mark: what was held back was none."""
        rest, self._rest = bytes(self._rest), bytearray()
        self.sink.write(rest)


def _beginning_of(mark: bytes, data: bytearray) -> int:
    """How many of the last bytes of `data` may be the beginning of `mark`."""
    for length in range(min(len(mark) - 1, len(data)), 0, -1):
        if data.endswith(mark[:length]):
            return length
    return 0
