"""Pages that a clone loads on top of the memory file that it maps."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import HostError
from pytest_vmsnap.fork.changed_pages import ChangedPages, stream_with
from pytest_vmsnap.fork.memory import MOST_LOADED, FullMemory, LayeredMemory
from pytest_vmsnap.store import stat_fingerprint

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096
A, B, C = (bytes([letter]) * PAGE for letter in b"abc")


def layer(path: Path, **runs: bytes) -> Path:
    """A directory with runs of pages, each named by its number of the page."""
    path.mkdir()
    for name, content in runs.items():
        (path / f"{int(name[1:]) * PAGE:x}").write_bytes(content)
    return path


@pytest.fixture
def mapped(tmp_path: Path) -> Path:
    path = tmp_path / "ram"
    path.write_bytes(A * 8)
    return path


def test_only_pages_that_differ_are_loaded_and_the_later_layer_holds(tmp_path: Path, mapped: Path) -> None:
    first = layer(tmp_path / "first", p0=B + A + B, p6=C)
    second = layer(tmp_path / "second", p2=C, p6=A)
    pages = ChangedPages(size=8 * PAGE, mapped=mapped, layers=(first, second))
    assert list(pages.pages()) == [(0, B), (2 * PAGE, C)]


def test_pages_behind_the_files_end_differ(tmp_path: Path, mapped: Path) -> None:
    pages = ChangedPages(size=16 * PAGE, mapped=mapped, layers=(layer(tmp_path / "one", p10=A),))
    assert list(pages.pages()) == [(10 * PAGE, A)]


def test_the_stream_has_them_before_the_devices(tmp_path: Path, mapped: Path) -> None:
    head = struct.pack(">II", 0x5145564D, 3)
    devices = tmp_path / "device-state"
    devices.write_bytes(head + b"\x04" + bytes(40) + b"\0")
    pages = ChangedPages(size=8 * PAGE, mapped=mapped, layers=(layer(tmp_path / "one", p1=B, p2=bytes(PAGE)),))
    stream_with(devices, pages, tmp_path / "stream")
    found = (tmp_path / "stream").read_bytes()
    assert found.startswith(head + b"\x04")
    assert struct.pack(">Q", PAGE | 0x08) + b"\x04ram0" + B in found
    assert struct.pack(">Q", 2 * PAGE | 0x02 | 0x20) + b"\0" in found
    assert found.endswith(b"\x04" + bytes(40) + b"\0")


def test_a_stream_that_cannot_be_made_leaves_no_file(tmp_path: Path, mapped: Path) -> None:
    devices = tmp_path / "device-state"
    devices.write_bytes(b"no stream")
    pages = ChangedPages(size=8 * PAGE, mapped=mapped, layers=())
    with pytest.raises(HostError, match="not a migration stream"):
        stream_with(devices, pages, tmp_path / "stream")
    assert not (tmp_path / "stream").exists()


def memory(tmp_path: Path, mapped: Path, *, loads: bool) -> LayeredMemory:
    """Two layers on a complete file; the second one loads its pages, and so does the first with `loads`."""
    full = FullMemory(fingerprint=stat_fingerprint(mapped))
    below = LayeredMemory(
        below=full,
        layers=(layer(tmp_path / "lower", p0=B),),
        size=8 * PAGE,
        provide=lambda build: build(tmp_path) or tmp_path,  # type: ignore[func-returns-value]
        loads=loads,
    )
    return LayeredMemory(
        below=below,
        layers=(layer(tmp_path / "upper", p1=C),),
        size=8 * PAGE,
        provide=lambda build: build(tmp_path) or tmp_path,  # type: ignore[func-returns-value]
        loads=True,
    )


def test_a_member_of_a_cluster_maps_the_nearest_memory_that_is_no_members(tmp_path: Path, mapped: Path) -> None:
    found = memory(tmp_path, mapped, loads=False)
    assert found.mapping() == (found.below, (tmp_path / "upper",))


def test_layers_of_several_members_are_loaded_lowest_first(tmp_path: Path, mapped: Path) -> None:
    found = memory(tmp_path, mapped, loads=True)
    below, layers = found.mapping()
    assert isinstance(below, FullMemory)
    assert layers == (tmp_path / "lower", tmp_path / "upper")


def test_too_many_pages_to_load_are_a_file_instead(tmp_path: Path, mapped: Path) -> None:
    found = memory(tmp_path, mapped, loads=True)
    with (tmp_path / "upper" / "5000").open("wb") as file:
        file.truncate(MOST_LOADED)
    assert found.mapping() == (found, ())


def test_a_page_in_several_layers_is_loaded_once_and_counts_once(tmp_path: Path, mapped: Path) -> None:
    """A member's own pages, which it loaded, are in each of its later saves too."""
    found = memory(tmp_path, mapped, loads=True)
    for name in ("lower", "upper"):
        with (tmp_path / name / "5000").open("wb") as file:
            file.truncate(MOST_LOADED * 3 // 4)
    below, layers = found.mapping()
    assert isinstance(below, FullMemory)
    assert len(layers) == 2


def test_the_stream_is_made_once_and_goes_with_the_memory(tmp_path: Path, mapped: Path) -> None:
    devices = tmp_path / "device-state"
    devices.write_bytes(struct.pack(">II", 0x5145564D, 3) + b"\x04" + bytes(40) + b"\0")
    found = memory(tmp_path, mapped, loads=True)
    pages = ChangedPages(size=8 * PAGE, mapped=mapped, layers=(tmp_path / "upper",))
    place = tmp_path / "place"

    def directory() -> Path:
        place.mkdir()
        return place

    stream = found.stream(devices, pages, directory)
    assert found.stream(devices, pages, directory) == stream == place / "device-state"
    found.drop()
    assert not place.exists()
