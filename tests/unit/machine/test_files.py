from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import ChannelError
from pytest_vmsnap.machine.files import _packed, _unpack

if TYPE_CHECKING:
    from pathlib import Path


def archive(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for member in members:
            made.addfile(member)
    return buffer.getvalue()


def member(name: str, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def test_a_tree_comes_out_under_its_new_name(tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "file").write_text("text")
    (tmp_path / "tree" / "sub").chmod(0o555)
    _unpack(_packed(tmp_path / "tree", "sent"), "sent", tmp_path / "got")
    assert (tmp_path / "got" / "sub" / "file").read_text() == "text"
    assert (tmp_path / "got" / "sub").stat().st_mode & 0o777 == 0o555


@pytest.mark.parametrize(
    "hostile",
    [
        [member("tree/../../escaped")],
        [member("/etc/escaped")],
        [member("other/file")],
        [member("tree/link", type=tarfile.SYMTYPE, linkname="/etc"), member("tree/link/escaped")],
        [member("tree/hard", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
        [member("tree/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    ],
    ids=["up", "absolute", "beside", "through a symlink", "by a hard link", "a device"],
)
def test_a_guest_cannot_write_outside_of_the_copy(tmp_path: Path, hostile: list[tarfile.TarInfo]) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(ChannelError, match="is not copied"):
        _unpack(archive(*hostile), "tree", inner / "copy")
    assert list(tmp_path.rglob("*")) == [inner]
