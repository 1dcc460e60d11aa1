"""What runs keep of states: what they were made from, and the lock file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import StoreError
from pytest_vmsnap.states import differences, read_lock, write_lock
from pytest_vmsnap.states.cache_key import key_parts

if TYPE_CHECKING:
    from pathlib import Path


def test_the_lock_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_lock(tmp_path) is None
    pins = {"states-one": f"sha256:{'1' * 64}", "images-two": f"sha256:{'2' * 64}"}
    path = write_lock(tmp_path, pins)
    assert read_lock(tmp_path) == pins
    assert path.stat().st_mode & 0o444 == 0o444


@pytest.mark.parametrize("text", ["[", "", "[registry]\nx = 'sha1:0'\n", "registry = 5"])
def test_a_lock_file_that_is_not_valid_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "vmsnap.lock").write_text(text)
    with pytest.raises(StoreError, match=r"vmsnap\.lock"):
        read_lock(tmp_path)


def test_what_differs_is_named_by_its_part() -> None:
    one = key_parts({"spec": {"memory": 512}, "cpu": "maximum", "prepare": [{"conftest.f": "def f():\n  one"}]})
    other = key_parts({"spec": {"memory": 512}, "cpu": "EPYC", "prepare": [{"conftest.f": "def f():\n  two"}]})
    assert differences(one, one) == []
    assert differences(one, other) == ["cpu is maximum, not EPYC", "prepare.conftest.f differs"]
    assert differences({}, {"qemu": "7.2"}) == ["qemu is new"]


def test_a_constant_of_the_project_is_not_shown() -> None:
    """It may be a password, and goes into the registry and into logs."""
    found = key_parts(
        {"source": {"conftest.TOKEN": "'hunter2'"}, "spec": {"image": "https://me:hunter2@host/i"}}
    )
    assert "hunter2" not in str(found)
    other = key_parts(
        {"source": {"conftest.TOKEN": "'hunter3'"}, "spec": {"image": "https://me:hunter2@host/i"}}
    )
    assert differences(found, other) == ["source.conftest.TOKEN differs"]
