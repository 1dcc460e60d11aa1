"""Pages of a process that ends while they are read."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.fork.pages import PageRange, copy_ranges, private_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 64 << 20
# maps the file privately, and writes to all of it
MAPPER = """
import mmap, sys
file = open(sys.argv[1], "rb")
memory = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
for place in range(0, len(memory), 4096):
    memory[place] = 1
print("mapped", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def mapping(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    file = tmp_path / "ram"
    with file.open("wb") as made:
        made.truncate(SIZE)
    process = subprocess.Popen(
        [sys.executable, "-c", MAPPER, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "mapped\n"
    yield process, file
    process.kill()
    process.communicate()


def test_the_pages_that_a_process_wrote_are_copied(
    mapping: tuple[subprocess.Popen[str], Path], tmp_path: Path
) -> None:
    process, file = mapping
    ranges = private_ranges(process.pid, file)
    assert sum(page_range.length for page_range in ranges) == SIZE
    copy_ranges(process.pid, file, ranges, lambda page_range: tmp_path / f"{page_range.offset:x}")
    copied = b"".join((tmp_path / f"{page_range.offset:x}").read_bytes() for page_range in ranges)
    assert copied == (b"\1" + bytes(mmap.PAGESIZE - 1)) * (SIZE // mmap.PAGESIZE)


def test_a_file_that_was_moved_is_not_taken_for_one_that_nobody_wrote_to(
    mapping: tuple[subprocess.Popen[str], Path], tmp_path: Path
) -> None:
    process, file = mapping
    (tmp_path / "gone").mkdir()
    file.rename(tmp_path / "gone" / "ram")
    with pytest.raises(FileNotFoundError):
        private_ranges(process.pid, file)


def test_a_process_that_ends_while_its_pages_are_copied_is_said_and_nobody_waits(
    mapping: tuple[subprocess.Popen[str], Path], tmp_path: Path
) -> None:
    process, file = mapping

    def target(page_range: PageRange) -> Path:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return tmp_path / f"{page_range.offset:x}"

    with pytest.raises(ProcessLookupError, match="ended while its memory was read"):
        copy_ranges(process.pid, file, [PageRange(offset=0, length=SIZE)], target)
