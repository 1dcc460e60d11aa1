"""A learning Ethernet switch: which frames go to which machine, and when.

Runs in the switch's process: imports nothing but the standard library. Frames are as QEMU's stream netdev has
them (QEMU, net/stream.c): each after its length in four bytes, big-endian.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from typing import TYPE_CHECKING

from pytest_vmsnap.network import pcapng
from pytest_vmsnap.network.faults import fate_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vmsnap.network.faults import Fault

LENGTH_BYTES = 4
HEADER_BYTES = 14  # of Ethernet
LONGEST_FRAME = 4096 + 65536  # QEMU's NET_BUFSIZE (include/net/net.h)
MOST_ADDRESSES = 4096  # that are remembered: a guest can make up any number
MOST_WAITING = 64 << 20  # bytes of frames that wait for their time; what is more is dropped
MULTICAST = 1  # in the first byte of an address: for more than one machine


class BadFrame(Exception):
    """What a machine sent is no stream of frames."""


class Trace:
    """The last frames, of at most `limit` bytes in all, for a capture of a failure."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._pieces: deque[tuple[int, int, bytes, str]] = deque()

    def add(self, source: int, frames: bytes, note: str = "") -> None:
        """Frames, each after its length, that the machine at the place `source` sent now."""
        self._pieces.append((time.time_ns(), source, frames, note))
        self._size += len(frames)
        while self._size > self._limit and len(self._pieces) > 1:
            self._size -= len(self._pieces.popleft()[2])

    def packets(self) -> Iterator[bytes]:
        """The frames as blocks of pcapng, oldest first."""
        for moment, source, frames, note in self._pieces:
            for frame in split(frames):
                yield pcapng.packet(source, moment, frame, note)


def split(stream: bytes) -> Iterator[bytes]:
    """The frames in a stream of whole ones."""
    at = 0
    while at < len(stream):
        end = at + LENGTH_BYTES + int.from_bytes(stream[at : at + LENGTH_BYTES], "big")
        yield stream[at + LENGTH_BYTES : end]
        at = end


class Forwarder:
    """Forwards frames between `count` machines, known by place; `send` has one sent to a machine.

    `record` is called with each stretch of frames that arrives: their source, the frames, and what became of
    them where a fault changed that.
    """

    def __init__(
        self, count: int, *, send: Callable[[int, bytes], None], record: Callable[[int, bytes, str], None]
    ) -> None:
        self._count = count
        self._send = send
        self._record = record
        self._places: dict[bytes, int] = {}  # by MAC address
        self._rest = [b""] * count  # of a frame that has not arrived whole
        self._waiting: list[tuple[float, int, int, bytes]] = []  # a heap: when, order, target, frame
        self._waiting_bytes = 0
        self._order = itertools.count()
        self.faults: list[Fault] = []

    def forget(self, source: int) -> None:
        """The machine at the place `source` has disconnected: what it had begun to send never ends."""
        self._rest[source] = b""

    def drop_waiting(self) -> None:
        """Drop all frames that wait for their time."""
        self._waiting.clear()
        self._waiting_bytes = 0

    def receive(self, source: int, data: bytes) -> None:
        """Forward what arrived from the machine at the place `source`. Raises `BadFrame`."""
        if rest := self._rest[source]:
            data = rest + data
        if self.faults:
            self._receive_with_faults(source, data)
        else:
            self._receive_plain(source, data)

    def _receive_plain(self, source: int, data: bytes) -> None:
        """Forward stretches of frames for one target in one piece: most of a stream is."""
        at = start = 0
        size = len(data)
        places = self._places
        current: int | None = -2  # target of the stretch from `start` on
        last_source = b""
        while size - at >= LENGTH_BYTES:
            length = int.from_bytes(data[at : at + LENGTH_BYTES], "big")
            end = at + LENGTH_BYTES + length
            if length < HEADER_BYTES or length > LONGEST_FRAME:
                raise BadFrame(length)
            if end > size:
                break
            to = places.get(data[at + 4 : at + 10])
            sender = data[at + 10 : at + 16]
            if sender != last_source:
                self._learn(sender, source)
                last_source = sender
            if to != current:
                self._forward(source, current, data[start:at])
                current, start = to, at
            at = end
        self._forward(source, current, data[start:at])
        if at:
            self._record(source, data[:at] if at < size else data, "")
        self._rest[source] = data[at:]

    def _learn(self, sender: bytes, source: int) -> None:
        if sender[0] & MULTICAST:
            return
        if len(self._places) >= MOST_ADDRESSES:
            self._places.clear()
        self._places[sender] = source

    def _forward(self, source: int, target: int | None, frames: bytes) -> None:
        if not frames:
            return
        if target is None:
            for place in range(self._count):
                if place != source:
                    self._send(place, frames)
        elif target != source:
            self._send(target, frames)

    def _receive_with_faults(self, source: int, data: bytes) -> None:
        at, size = 0, len(data)
        now = time.monotonic()
        while size - at >= LENGTH_BYTES:
            length = int.from_bytes(data[at : at + LENGTH_BYTES], "big")
            end = at + LENGTH_BYTES + length
            if length < HEADER_BYTES or length > LONGEST_FRAME:
                raise BadFrame(length)
            if end > size:
                break
            self._frame_with_faults(source, data[at:end], now)
            at = end
        self._rest[source] = data[at:]

    def _frame_with_faults(self, source: int, frame: bytes, now: float) -> None:
        self._learn(frame[10:16], source)
        known = self._places.get(frame[4:10])
        targets = [place for place in range(self._count) if place != source] if known is None else [known]
        notes = []
        for target in targets:
            if target == source:
                continue
            fate = fate_of(self.faults, (source, target), len(frame) - LENGTH_BYTES, now)
            notes += fate.notes
            for seconds in fate.delays:
                if seconds <= 0:
                    self._send(target, frame)
                elif self._waiting_bytes + len(frame) > MOST_WAITING:
                    notes.append("dropped: too much waits")
                else:
                    self._waiting_bytes += len(frame)
                    heapq.heappush(self._waiting, (now + seconds, next(self._order), target, frame))
        self._record(source, frame, ", ".join(notes))

    def send_due(self) -> float | None:
        """Send the frames whose time has come; returns the seconds until the next one's, None without one."""
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, target, frame = heapq.heappop(self._waiting)
            self._waiting_bytes -= len(frame)
            self._send(target, frame)
        return max(0.0, self._waiting[0][0] - now) if self._waiting else None
