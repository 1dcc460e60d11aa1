"""Trees as archives: made piece by piece, and unpacked without trust in who made them."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import ChannelError
from pytest_vmsnap.machine.tar_source import packed
from pytest_vmsnap.machine.tar_target import Unpacking, move_into_place

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def archive(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for member in members:
            made.addfile(member, io.BytesIO(bytes(member.size)))
    return buffer.getvalue()


def member(name: str, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def unpack(data: bytes, name: str, staging: Path) -> None:
    staging.mkdir(exist_ok=True)
    unpacking = Unpacking(name, staging, lambda _: None)
    with suppress(BrokenPipeError):  # it may be refused before its end
        unpacking.file.write(data)
    unpacking.finish()
    if unpacking.failure:
        raise unpacking.failure


def pack(source: Path, *, with_holes: bool = True) -> bytes:
    made = packed(source, "x", with_holes=with_holes)
    data = b"".join(made.archive.open())
    assert len(data) == made.archive.size
    return data


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "file").write_text("text")
    (root / "same").hardlink_to(root / "sub" / "file")
    (root / "link").symlink_to("sub/file")
    (root / ("long" * 50)).write_bytes(b"x" * 1000)
    with (root / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(10 * MIB)
        file.write(b"end")
        file.truncate(30 * MIB)
    os.utime(root / "sub" / "file", ns=(10**18, 10**18 + 5 * 10**8))
    (root / "sub").chmod(0o555)
    return root


def test_a_tree_comes_out_as_it_went_in(tree: Path, tmp_path: Path) -> None:
    unpack(pack(tree), "x", tmp_path / "got")
    got = tmp_path / "got" / "x"
    assert sorted(path.relative_to(got) for path in got.rglob("*")) == sorted(
        path.relative_to(tree) for path in tree.rglob("*")
    )
    assert (got / "sub" / "file").read_text() == "text"
    assert (got / "sub" / "file").stat().st_mtime == 10**9 + 0.5
    assert (got / "same").samefile(got / "sub" / "file")
    assert str((got / "link").readlink()) == "sub/file"
    assert (got / "sub").stat().st_mode & 0o777 == 0o555
    assert (got / "sparse").read_bytes() == (tree / "sparse").read_bytes()
    assert (got / "sparse").stat().st_blocks * 512 < MIB


def test_gnu_tar_reads_what_is_packed_and_keeps_its_holes(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "got").mkdir()
    subprocess.run(["tar", "-xpf", "-", "-C", str(tmp_path / "got")], input=pack(tree), check=True)
    assert (tmp_path / "got/x/sparse").read_bytes() == (tree / "sparse").read_bytes()
    assert (tmp_path / "got/x/sparse").stat().st_blocks * 512 < MIB
    assert (tmp_path / "got/x/same").samefile(tmp_path / "got/x/sub/file")


def test_holes_are_not_sent(tree: Path) -> None:
    assert len(pack(tree)) < MIB
    without = packed(tree, "x", with_holes=False)
    assert [(each.name, each.size) for each in without.sparse] == [("x/sparse", 30 * MIB)]
    with tarfile.open(fileobj=io.BytesIO(b"".join(without.archive.open()))) as made:
        assert made.getmember("x/sparse").size == 0


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_what_gnu_tar_packs_keeps_its_holes(tree: Path, tmp_path: Path, form: str) -> None:
    command = ["tar", "-cSf", "-", f"--format={form}", "-C", str(tree.parent), "tree"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    unpack(data, "tree", tmp_path / "got")
    assert (tmp_path / "got/tree/sparse").read_bytes() == (tree / "sparse").read_bytes()
    assert (tmp_path / "got/tree/sparse").stat().st_blocks * 512 < MIB


def test_zeros_that_were_sent_become_holes(tmp_path: Path) -> None:
    unpack(archive(member("x", size=8 * MIB)), "x", tmp_path / "got")
    assert (tmp_path / "got" / "x").stat().st_size == 8 * MIB
    assert (tmp_path / "got" / "x").stat().st_blocks * 512 < MIB


@pytest.mark.parametrize("change", ["longer", "shorter", "gone", "new"])
def test_a_tree_that_changes_while_it_is_sent_is_said(tree: Path, change: str) -> None:
    made = packed(tree, "x", with_holes=True)
    pieces = made.archive.open()
    (tree / "sub").chmod(0o755)
    if change == "gone":
        (tree / ("long" * 50)).unlink()
    elif change == "new":
        (tree / "zzz").write_text("new")
    else:
        (tree / ("long" * 50)).write_bytes(b"x" * (100 if change == "shorter" else 10_000))
    with pytest.raises(ChannelError, match="changed while it was copied"):
        list(pieces)


@pytest.mark.parametrize(
    "hostile",
    [
        [member("tree/../../escaped")],
        [member("/etc/escaped")],
        [member("other/file")],
        [
            member("tree", type=tarfile.DIRTYPE),
            member("tree/link", type=tarfile.SYMTYPE, linkname="/etc"),
            member("tree/link/escaped"),
        ],
        [member("tree", type=tarfile.DIRTYPE), member("tree/h", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
        [member("tree", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
        [member("tree", type=tarfile.DIRTYPE), member("tree")],
    ],
    ids=["up", "absolute", "beside", "through a symlink", "by a hard link", "a device", "over a directory"],
)
def test_a_guest_cannot_write_outside_of_the_copy(tmp_path: Path, hostile: list[tarfile.TarInfo]) -> None:
    with pytest.raises(ChannelError, match=r"is not copied|cannot be downloaded"):
        unpack(archive(*hostile), "tree", tmp_path / "inner")
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]


def test_a_member_that_comes_twice_does_not_follow_its_first_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    hostile = archive(member("x", type=tarfile.SYMTYPE, linkname=str(victim)), member("x", size=3, mode=0o6755))
    unpack(hostile, "x", tmp_path / "got")
    assert victim.read_text() == "untouched"
    assert (tmp_path / "got" / "x").stat().st_mode & 0o7777 == 0o755


def test_a_size_that_no_disk_has_is_refused(tmp_path: Path) -> None:
    huge = member("x", size=1 << 60).tobuf()
    with pytest.raises(OSError, match="needs"):
        unpack(huge + bytes(1024), "x", tmp_path / "got")


def test_an_archive_that_ends_in_the_middle_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(tarfile.TarError):
        unpack(archive(member("x", size=100_000))[:50_000], "x", tmp_path / "got")


def test_a_tree_is_merged_into_one_that_is_there(tmp_path: Path) -> None:
    for name, text in {"old/a": "old", "old/sub/b": "old", "new/a": "new", "new/sub/c": "new"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    move_into_place(tmp_path / "new", tmp_path / "old")
    found = {
        str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert found == {"old/a": "new", "old/sub/b": "old", "old/sub/c": "new"}


def test_a_file_and_a_directory_do_not_replace_each_other(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(IsADirectoryError):
        move_into_place(tmp_path / "file", tmp_path / "directory")
    with pytest.raises(NotADirectoryError):
        move_into_place(tmp_path / "directory", tmp_path / "file")
