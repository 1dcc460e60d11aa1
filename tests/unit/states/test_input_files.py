"""What the inputs of a state are, by content."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap import StateError
from pytest_vmsnap.states import Declaration, inputs_digest

if TYPE_CHECKING:
    from pathlib import Path


def digests(base: Path, *globs: str) -> dict[str, str]:
    def prepared(vm: Any) -> None: ...

    file = base / "conftest.py"
    return inputs_digest(Declaration(name="prepared", function=prepared, file=file, inputs=globs))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    base = tmp_path / "tests"
    (base / "site" / "inner").mkdir(parents=True)
    (base / "site" / "a.conf").write_text("a")
    (base / "site" / "inner" / "b.conf").write_text("b")
    (tmp_path / "outside.txt").write_text("o")
    return base


def test_files_are_named_relative_to_the_file_of_the_state_and_sorted(base: Path) -> None:
    assert list(digests(base, "site/*.conf", "../outside.txt")) == ["../outside.txt", "site/a.conf"]


def test_a_directory_is_taken_with_all_within(base: Path) -> None:
    assert list(digests(base, "site")) == ["site/", "site/a.conf", "site/inner/", "site/inner/b.conf"]


def test_without_inputs_there_is_nothing(base: Path) -> None:
    assert digests(base) == {}


def test_the_same_files_have_the_same_digests(base: Path) -> None:
    before = digests(base, "site")
    os.utime(base / "site" / "a.conf", (1, 1))
    assert digests(base, "site", "site/*.conf") == before


def test_content_mode_name_and_target_are_what_counts(base: Path) -> None:
    file = base / "site" / "a.conf"
    found = [digests(base, "site")]
    file.write_text("changed")
    found.append(digests(base, "site"))
    file.chmod(0o755)
    found.append(digests(base, "site"))
    file.rename(base / "site" / "c.conf")
    found.append(digests(base, "site"))
    file.symlink_to("c.conf")
    found.append(digests(base, "site"))
    file.unlink()
    file.symlink_to("gone.conf")
    found.append(digests(base, "site"))
    (base / "site" / "empty").mkdir()
    found.append(digests(base, "site"))
    assert all(one != two for one, two in pairwise(found))


def test_a_link_is_not_followed(base: Path, tmp_path: Path) -> None:
    (base / "site" / "up").symlink_to(tmp_path)
    before = digests(base, "site")
    (tmp_path / "outside.txt").write_text("changed")
    assert digests(base, "site") == before


def test_compiled_files_are_passed_over(base: Path) -> None:
    before = digests(base, "site", "site/**/*")
    (base / "site" / "__pycache__").mkdir()
    (base / "site" / "__pycache__" / "a.pyc").write_text("x")
    assert digests(base, "site", "site/**/*") == before


def test_a_pipe_is_taken_by_its_name_alone(base: Path) -> None:
    os.mkfifo(base / "site" / "pipe")
    assert "site/pipe" in digests(base, "site")


def test_a_glob_that_matches_nothing_is_refused_with_the_directory(base: Path) -> None:
    with pytest.raises(StateError, match=f"the state prepared: the input 'none/.' matches no file in {base}\n"):
        digests(base, "site", "none/*")
