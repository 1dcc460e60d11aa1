"""Streams of a guest's, in bounded memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_vmsnap.guest.streams import Captured, FileSink, MarkedStream, Tail


def test_a_stream_ends_at_its_mark_across_pieces() -> None:
    out = Captured()
    stream = MarkedStream(b"#mark", out)
    stream.feed(b"out#ma")
    assert (stream.is_ended, out.content()) == (False, b"out")
    stream.feed(b"rk 0\n and what nobody waits for")
    assert (stream.is_ended, out.content(), bytes(stream.behind)) == (True, b"out", b" 0\n and what nob")


@pytest.mark.parametrize(
    ("data", "settled"), [(b"root@vm:~# ", 11), (b"a#", 1), (b"a#ma", 1), (b"a#mb", 4), (b"a#mark", 1)]
)
def test_what_may_be_the_beginning_of_the_mark_is_held_back(data: bytes, settled: int) -> None:
    out = Captured()
    MarkedStream(b"#mark", out).feed(data)
    assert out.content() == data[:settled]


def test_what_was_held_back_is_the_streams_own_where_that_ends_without_its_mark() -> None:
    out = Captured()
    stream = MarkedStream(b"#mark", out)
    stream.feed(b"out#ma")
    stream.flush()
    assert out.content() == b"out#ma"


def test_what_comes_behind_the_mark_is_dropped_however_much_it_is() -> None:
    stream = MarkedStream(b"#mark", Captured())
    stream.feed(b"#mark 0\n")
    for _ in range(100):
        stream.feed(bytes(100_000))
    assert len(stream.behind) == 16


def test_a_stream_that_is_longer_than_its_limit_has_its_first_and_last_bytes() -> None:
    out = Captured(100_000)
    out.write(b"first" + bytes(99_000))
    assert not out.is_closed
    for _ in range(1000):
        out.write(bytes(10_000))
    out.write(b"last")
    assert out.is_closed
    content = out.content()
    assert content.startswith(b"first\0")
    assert content.endswith(b"\0last")
    assert b"bytes left out" in content
    assert len(content) < 40_000
    assert out.size == 5 + 99_000 + 10_000_000 + 4


def test_the_last_bytes_are_kept_of_a_stream_of_any_length() -> None:
    out = Tail(5)
    for number in range(1000):
        out.write(b"%d " % number)
    assert out.content() == b" 999 "


def test_a_file_that_cannot_be_written_closes_its_stream() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        out = FileSink(full)
        out.write(b"x")
        assert out.is_closed
        assert out.failure
        assert os.strerror(out.failure.errno or 0) == "No space left on device"
        out.write(b"dropped")
