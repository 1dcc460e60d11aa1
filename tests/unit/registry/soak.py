"""What one of the processes of the soak does: 50 pushes, and a pull of what the others push."""

from __future__ import annotations

import hashlib
import random
import time
from typing import TYPE_CHECKING

from pytest_vmsnap.progress import silent
from pytest_vmsnap.registry import Description, Puller, open_registry, parse_address, push
from pytest_vmsnap.store import EntryName, Store, expect_whole

if TYPE_CHECKING:
    from pathlib import Path

TIMES, PROCESSES = 50, 4
SECONDS = 600.0


def content(process: int, number: int) -> bytes:
    """What the entry holds: the same in each process, partly the same in all."""
    return random.Random(number).randbytes(300_000) + random.Random(process * 1000 + number).randbytes(300_000)


def name_of(process: int, number: int) -> EntryName:
    return EntryName(kind="images", key=f"soak{process}x{number}")


def work(directory: Path, address: str, own: int) -> None:
    registry = open_registry(parse_address(address))
    mine = Store(directory / "mine", progress=silent())
    theirs = Store(directory / "theirs", progress=silent())
    puller = Puller(
        theirs, registry, progress=silent(), accept=lambda *_: None, pinned=None, build_instead=False
    )
    theirs.sources = [puller]
    for number in range(TIMES):
        name = name_of(own, number)
        mine.provide(
            "images", name.key, "image", lambda draft, number=number: put(draft / "disk", content(own, number))
        )
        push(mine, registry, name, describe=lambda each: Description(title=str(each)), progress=silent())
        other = (own + 1 + number % (PROCESSES - 1)) % PROCESSES
        expect_pulled(theirs, other, number)


def put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def expect_pulled(store: Store, process: int, number: int) -> None:
    """Pull what another process pushes, as soon as it has."""
    name = name_of(process, number)
    deadline = time.monotonic() + SECONDS

    class NotYetError(Exception):
        pass

    def not_yet(draft: Path) -> None:
        raise NotYetError

    while True:
        try:
            entry = store.provide("images", name.key, "image", not_yet)
        except NotYetError:
            assert time.monotonic() < deadline, f"{name} was never pushed"
            time.sleep(0.05)
        else:
            break
    expect_whole(entry)
    found = hashlib.sha256((entry / "disk").read_bytes()).hexdigest()
    assert found == hashlib.sha256(content(process, number)).hexdigest()
