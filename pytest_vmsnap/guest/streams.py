"""Where a command's output goes and its input comes from: in pieces, never whole in the host's memory.

The guest decides how much a command prints, so nothing here grows with that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OUTPUT_LIMIT = 64 << 20  # bytes of a stream that are kept in memory by default
GATHERED = 1 << 20  # bytes of small pieces that are joined into one
EDGE = 16 << 10  # bytes kept of the beginning and of the end of a stream that is too long
AFTER_MARK = 16  # most bytes that are read after a mark: " 255 died\n"


class Sink(Protocol):
    """Takes a stream in pieces, as they come."""

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more, so that the command is killed. What still comes is dropped."""

    def write(self, piece: bytes) -> None:
        """Take the next piece; never raises."""


class Captured:
    """Keeps a stream in memory up to `limit` bytes, and of a longer one only its beginning and its end."""

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
        """Return all of it; if it is too long, its first and last 16 KiB with a line between them."""
        if not self.is_closed:
            return b"".join([*self._pieces, self._data])
        left_out = self.size - len(self._data) - len(self._end)
        if left_out <= 0:
            return bytes(self._data)
        return b"%s\n[... %d bytes left out ...]\n%s" % (self._data, left_out, self._end)


class Tail:
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
        """Return what is kept."""
        return bytes(self._data[-self._limit :])


class Discarded:
    """Drops a stream."""

    is_closed = False

    def write(self, piece: bytes) -> None:
        """Drop it."""


class FileSink:
    """Writes a stream to an open `file`; `failure` is the error that ended this, such as a full disk.

    `end` has the stream's last bytes, for messages.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failure: OSError | None = None
        self.end = Tail(EDGE)

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
        """Return nothing: the stream is in the file."""
        return b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Input of `size` bytes; `open` returns its pieces, and may be called once."""

    size: int
    open: Callable[[], Iterator[bytes]]


def source_of(data: bytes) -> Source:
    """Return `data` as a source."""
    return Source(size=len(data), open=lambda: iter((data,)))


def joined(first: bytes, second: Source) -> Source:
    """Return a source of `first` followed by `second`."""

    def pieces() -> Iterator[bytes]:
        yield first
        yield from second.open()

    return Source(size=len(first) + second.size, open=pieces)


@dataclass(slots=True)
class MarkedStream:
    """A stream up to a `mark`: what comes before it goes to `sink`, what comes after it is dropped.

    `behind` has the first bytes after the mark; `is_ended` says whether the mark has come.
    """

    mark: bytes
    sink: Sink
    is_ended: bool = False
    behind: bytearray = field(default_factory=bytearray)
    _rest: bytearray = field(default_factory=bytearray)  # what may be the beginning of the mark

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        if self.is_ended:
            self.behind += piece[: max(0, AFTER_MARK - len(self.behind))]
            return
        data = self._rest + piece
        at = data.find(self.mark)
        if at >= 0:
            self.sink.write(bytes(data[:at]))
            self.is_ended = True
            self.behind += data[at + len(self.mark) :][:AFTER_MARK]
            self._rest.clear()
            return
        kept = _beginning_of(self.mark, data)
        if settled := len(data) - kept:
            self.sink.write(bytes(data[:settled]))
        self._rest = data[settled:]

    def flush(self) -> None:
        """Pass on what was held back: the stream has ended without its mark."""
        rest, self._rest = bytes(self._rest), bytearray()
        self.sink.write(rest)


def _beginning_of(mark: bytes, data: bytearray) -> int:
    """Return how many of the last bytes of `data` may be the beginning of `mark`."""
    for length in range(min(len(mark) - 1, len(data)), 0, -1):
        if data.endswith(mark[:length]):
            return length
    return 0
