"""Several jobs share a suite: each of its tests runs in exactly one of them."""

from __future__ import annotations

import json

import pytest

CONFTEST = """
import pytest
from pytest_vmsnap import state

@state
def installed(vm): pass

@pytest.fixture
def vm(): pass
"""
TESTS = """
import pytest

@pytest.mark.parametrize("number", range(6))
def test_base(vm, number): pass

@pytest.mark.vm_state("installed")
@pytest.mark.parametrize("number", range(3))
def test_installed(vm, number): pass

def test_plain(): pass
"""


@pytest.fixture(autouse=True)
def _suite(project: pytest.Pytester) -> None:
    project.makeconftest(CONFTEST)
    project.makepyfile(test_it=TESTS)


def names(project: pytest.Pytester, *args: str) -> list[str]:
    result = project.runpytest_subprocess("--collect-only", "-q", *args)
    assert result.ret == pytest.ExitCode.OK
    return [line.rpartition("::")[2] for line in result.outlines if "::" in line]


@pytest.mark.parametrize("count", [2, 5])
def test_each_test_is_in_exactly_one_shard(project: pytest.Pytester, count: int) -> None:
    everything = names(project)
    parts = [names(project, f"--vmsnap-shard={number}/{count}") for number in range(1, count + 1)]
    assert sorted(name for part in parts for name in part) == sorted(everything)
    assert all(parts)


def test_tests_of_a_state_stay_together(project: pytest.Pytester) -> None:
    parts = [names(project, f"--vmsnap-shard={number}/3") for number in (1, 2, 3)]
    assert sum(any("installed" in name for name in part) for part in parts) == 1


def test_the_recorded_times_decide(project: pytest.Pytester) -> None:
    times = {f"test_it.py::test_installed[{number}]": 100.0 for number in range(3)}
    times |= {f"test_it.py::test_base[{number}]": 1.0 for number in range(6)}
    (project.path / ".test_durations").write_text(json.dumps(times))
    parts = [names(project, f"--vmsnap-shard={number}/3") for number in (1, 2, 3)]
    assert all(sum("installed" in name for name in part) == 1 for part in parts)


def test_a_shuffled_order_changes_nothing_of_it(project: pytest.Pytester) -> None:
    project.makepyfile(
        shuffler="import os, random\n\ndef pytest_collection_modifyitems(items):\n"
        "    random.seed(os.environ['SEED'])\n    random.shuffle(items)"
    )
    project.syspathinsert()
    found = []
    for number in (1, 2, 3):
        project._monkeypatch.setenv("SEED", str(number))
        found += names(project, "-p", "shuffler", f"--vmsnap-shard={number}/3")
    assert sorted(found) == sorted(names(project))


def test_a_shard_without_tests_passes(project: pytest.Pytester) -> None:
    project.makepyfile(test_it="def test_one(): pass")
    for more in ([], ["-n", "1"]):
        results = [project.runpytest_subprocess(f"--vmsnap-shard={number}/2", *more) for number in (1, 2)]
        assert [result.ret for result in results] == [pytest.ExitCode.OK] * 2
        assert sorted(result.parseoutcomes().get("passed", 0) for result in results) == [0, 1]


def test_a_suite_without_tests_is_still_reported(project: pytest.Pytester) -> None:
    project.makepyfile(test_it="")
    assert project.runpytest_subprocess("--vmsnap-shard=1/2").ret == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.parametrize("written", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_what_is_no_shard_is_refused(project: pytest.Pytester, written: str) -> None:
    result = project.runpytest_subprocess(f"--vmsnap-shard={written}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--vmsnap-shard*{written}*"])


def test_a_file_of_times_that_cannot_be_read_is_named(project: pytest.Pytester) -> None:
    (project.path / ".test_durations").write_text("{")
    result = project.runpytest_subprocess("--vmsnap-shard=1/2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*.test_durations is not a file of recorded times*"])


def test_pytest_split_works_too(project: pytest.Pytester) -> None:
    found = []
    for number in ("1", "2"):
        part = names(project, "--splits", "2", "--group", number)
        found += part
    assert sorted(found) == sorted(names(project))
