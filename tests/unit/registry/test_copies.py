"""Much of a guest's memory is on its disks too: a pull copies it from there."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.errors import RegistryError, StoreDamaged
from pytest_vmsnap.registry.artifact import MOST_SOURCES, Source
from pytest_vmsnap.registry.find import entry_at
from pytest_vmsnap.registry.pieces import COPY, HEAD, LONGEST_PIECE, MOST_PLACES, unpack, zstd
from pytest_vmsnap.store import EntryName, expect_whole

from .conftest import Host
from .test_push_and_pull import digest, pushed, put_in_place

if TYPE_CHECKING:
    from pathlib import Path

    from ...registry_server import RegistryServer

PAGE, MIB = 4096, 1 << 20
BASE = EntryName(kind="images", key="base1base1")
CHILD = EntryName(kind="states", key="child1child1")
ON_IMAGE, ON_OVERLAY, NEW = (
    [os.urandom(PAGE) for _ in range(count)] for count in (2 * MIB // PAGE, 2 * MIB // PAGE, 16)
)
MEMORY = [bytes(PAGE), *ON_IMAGE, *ON_OVERLAY, *ON_OVERLAY[:9], *NEW]
random.Random(1).shuffle(MEMORY)
# runs of pages are copied in one
MEMORY += ON_IMAGE


def provide(host: Host) -> Path:
    """The child, which is built on the image."""

    def image(draft: Path) -> None:
        host.built.append(BASE)
        (draft / "disk.qcow2").write_bytes(b"".join([b"header".ljust(PAGE), *ON_IMAGE]))

    def child(draft: Path) -> list[EntryName]:
        host.store.provide(BASE.kind, BASE.key, "image", image)
        host.built.append(CHILD)
        (draft / "disk0.qcow2").write_bytes(b"".join(ON_OVERLAY))
        (draft / "ram").write_bytes(b"".join(MEMORY))
        (draft / "pages").mkdir()
        (draft / "pages" / "1000").write_bytes(b"".join([ON_IMAGE[7], NEW[0], ON_OVERLAY[3]]))
        (draft / "meta.json").write_text("{}")
        return [BASE]

    return host.store.provide(CHILD.kind, CHILD.key, "state child", child, depends_on=[BASE])


@pytest.fixture
def first(tmp_path: Path, fresh_server: RegistryServer) -> Host:
    """A host that has built the child."""
    host = Host(tmp_path / "first", fresh_server.address)
    host.store.sources = []
    provide(host)
    return host


def test_what_is_on_the_disks_is_not_sent_with_the_memory(
    tmp_path: Path, fresh_server: RegistryServer, first: Host
) -> None:
    image, child = pushed(first, CHILD)
    assert 2 * MIB < image.sent < 2.1 * MIB
    assert 2 * MIB < child.sent < 2.2 * MIB  # its own disk, and little more
    second = Host(tmp_path / "second", fresh_server.address)
    entry = provide(second)
    assert second.built == []
    for name in ("disk0.qcow2", "ram", "pages/1000"):
        assert digest(entry / name) == digest(first.store.place(CHILD) / name)
    expect_whole(entry)


def test_a_disk_that_has_changed_is_noticed_and_the_run_builds(
    tmp_path: Path, fresh_server: RegistryServer, first: Host
) -> None:
    pushed(first, CHILD)
    second = Host(tmp_path / "second", fresh_server.address)
    disk = second.store.provide(BASE.kind, BASE.key, "image", lambda _: None) / "disk.qcow2"
    disk.chmod(0o600)
    with disk.open("r+b") as file:
        file.seek(9 * PAGE)
        file.write(b"changed")
    provide(second)
    assert second.built == [CHILD]
    assert any("ram of the state child1child1 is not whole" in line for line in second.said), second.said


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Source(entry=BASE, file="../../../etc/passwd"), "which is no disk of an entry"),
        (Source(entry=EntryName(kind="images", key="other"), file="disk.qcow2"), "copies what is not there"),
        (Source(entry=CHILD, file="ram"), "copies what is not there"),  # not whole yet
        (Source(entry=BASE, file="no-such-disk"), "copies what is not there"),
    ],
)
def test_a_source_that_is_not_below_is_refused(
    tmp_path: Path, fresh_server: RegistryServer, first: Host, source: Source, said: str
) -> None:
    pushed(first, CHILD)
    _, found = entry_at(first.registry, f"states-{CHILD.key}") or pytest.fail("it was not pushed")
    put_in_place(first, replace(found, sources=(source, *found.sources[1:])))
    other = Host(tmp_path / "second", fresh_server.address)
    provide(other)
    assert CHILD in other.built
    assert any(said in line for line in other.said), other.said


@pytest.mark.parametrize(
    ("copies", "said"),
    [
        ([(0, PAGE, 1, 0)], "copies what is not there"),
        ([(0, PAGE, 0, 2 * PAGE)], "copies what is not there"),
        ([(0, PAGE, 0, PAGE + 1)], "copies what is not there"),
        ([(0, PAGE, 0, 2**64 - 1)], "copies what is not there"),
        ([(9 * MIB, 8 * MIB, 0, 0)], "its ranges are not those of its file"),
        ([(0, LONGEST_PIECE // 2 + 1, 0, 0)] * 2, "it is for more than it says"),
        ([(0, 0, 0, 0)], "its ranges are not those of its file"),
        ([(0, PAGE, 0, 0)] * (MOST_PLACES + 1), "it has more than"),
    ],
)
def test_a_copy_that_cannot_be_is_refused(
    tmp_path: Path, copies: list[tuple[int, int, int, int]], said: str
) -> None:
    whole = HEAD.pack(0, len(copies)) + b"".join(COPY.pack(*each) for each in copies)
    (tmp_path / "source").write_bytes(bytes(2 * PAGE))
    with (tmp_path / "source").open("rb") as source, (tmp_path / "target").open("wb") as target:
        target.truncate(16 * MIB)
        with pytest.raises(RegistryError, match=said):
            unpack(
                zstd.compress(whole),
                len(whole),
                target.fileno(),
                16 * MIB,
                copied=sum(length for _, length, _, _ in copies),
                sources=[source.fileno()],
            )


def test_a_piece_that_copies_more_than_it_says_is_refused(tmp_path: Path) -> None:
    whole = HEAD.pack(0, 1) + COPY.pack(0, PAGE, 0, 0)
    (tmp_path / "both").write_bytes(bytes(2 * PAGE))
    with (tmp_path / "both").open("r+b") as both, pytest.raises(RegistryError, match="more than it says"):
        unpack(zstd.compress(whole), len(whole), both.fileno(), PAGE, copied=0, sources=[both.fileno()])


def test_a_damaged_disk_below_is_not_pushed_from(first: Host) -> None:
    pushed(first, BASE)
    disk = first.store.place(BASE) / "disk.qcow2"
    disk.chmod(0o600)
    with disk.open("r+b") as file:
        file.seek(9 * PAGE)
        file.write(b"changed")
    with pytest.raises(StoreDamaged, match=r"disk\.qcow2 changed after it was saved"):
        pushed(first, CHILD)


def test_a_long_list_of_sources_is_refused(tmp_path: Path, fresh_server: RegistryServer, first: Host) -> None:
    pushed(first, CHILD)
    _, found = entry_at(first.registry, f"states-{CHILD.key}") or pytest.fail("it was not pushed")
    many = tuple(replace(found.sources[0], file=f"disk{number}") for number in range(MOST_SOURCES + 1))
    for sources in (many, (found.sources[0],) * 2):
        put_in_place(first, replace(found, sources=sources))
        with pytest.raises(RegistryError, match="its list of sources"):
            entry_at(first.registry, f"states-{CHILD.key}")


def test_a_pull_that_was_interrupted_goes_on_with_its_copies(
    tmp_path: Path, fresh_server: RegistryServer, first: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_vmsnap.registry import pull

    pushed(first, CHILD)
    asked = 0

    def interrupted(*arguments: Any, **named: Any) -> int:
        nonlocal asked
        asked += 1
        if asked == 3:  # of the child's memory: the image's and the child's disk are there
            raise KeyboardInterrupt
        return unpack(*arguments, **named)

    monkeypatch.setattr(pull, "unpack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        provide(Host(tmp_path / "second", fresh_server.address))
    monkeypatch.setattr(pull, "unpack", unpack)
    second = Host(tmp_path / "second", fresh_server.address)
    entry = provide(second)
    assert second.built == []
    assert digest(entry / "ram") == digest(first.store.place(CHILD) / "ram")
