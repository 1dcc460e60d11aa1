"""The directory of evidence: what is ours in it, and what is somebody's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.evidence.artifact import Artifact
from pytest_vmsnap.evidence.artifact_directories import Archive

if TYPE_CHECKING:
    from pathlib import Path


def piece(name: str, text: str = "text") -> Artifact:
    return Artifact(name=name, title=name, data=text.encode())


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} - {"evidence.json"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


def test_a_test_has_a_directory_that_reads_as_its_name(root: Path) -> None:
    written = Archive(root, run="one").write("tests/test_a.py::TestB::test_c[1]", [piece("a.txt")], [])
    assert written == root / "tests-test_a.py-TestB-test_c[1]"
    assert (written / "a.txt").read_text() == "text"


def test_what_an_earlier_run_left_of_the_test_goes_and_what_is_not_ours_stays(root: Path) -> None:
    written = Archive(root, run="one").write("test", [piece("old.txt"), piece("both.txt", "old")], [])
    (written / "mine").touch()
    again = Archive(root, run="two").write("test", [piece("both.txt", "new")], [])
    assert again == written
    assert names(written) == {"both.txt", "mine"}
    assert (written / "both.txt").read_text() == "new"


def test_two_failures_of_one_test_in_a_run_are_kept_beside_one_another(root: Path) -> None:
    archive = Archive(root, run="one")
    archive.write("test", [piece("call.txt")], [])
    assert names(archive.write("test", [piece("teardown.txt")], [])) == {"call.txt", "teardown.txt"}


def test_tests_whose_names_read_alike_have_a_directory_each(root: Path) -> None:
    archive = Archive(root, run="one")
    one, two = (archive.write(test, [piece("a.txt", test)], []) for test in ("a/b.py::c", "a-b.py::c"))
    assert one != two
    assert (one / "a.txt").read_text() == "a/b.py::c"


def test_a_directory_that_somebody_made_is_left_alone(root: Path) -> None:
    (root / "test").mkdir(parents=True)
    (root / "test" / "a.txt").write_text("mine")
    written = Archive(root, run="one").write("test", [piece("a.txt")], [])
    assert written != root / "test"
    assert (root / "test" / "a.txt").read_text() == "mine"


@pytest.mark.parametrize("test", ["x" * 500, "é" * 500, "a b\n/../../etc", "..", "::"])
def test_any_name_makes_a_directory_of_its_own_below_the_root(root: Path, test: str) -> None:
    written = Archive(root, run="one").write(test, [piece("a.txt")], [])
    assert written.parent == root
    assert written.resolve() == written


def test_the_root_is_ignored_by_git_if_we_have_made_it(root: Path, tmp_path: Path) -> None:
    Archive(root, run="one").write("test", [piece("a.txt")], [])
    assert "*" in (root / ".gitignore").read_text().splitlines()
    own = tmp_path / "own"
    own.mkdir()
    Archive(own, run="one").write("test", [piece("a.txt")], [])
    assert not (own / ".gitignore").exists()
