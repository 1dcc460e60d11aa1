"""What xdist's controller shows and decides by what its workers tell it; no machine is started."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("xdist")

SESSION = """
import pytest
from pytest_vmsnap import state
from pytest_vmsnap.session import SESSION_KEY

class Session:
    in_use = False

    def describe(self):
        return ["vmsnap: DESCRIBED"]

    def __getattr__(self, name):
        return lambda *_, **__: []

@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    config.stash[SESSION_KEY].close()
    config.stash[SESSION_KEY] = Session()

@pytest.fixture
def vm():
    return "a machine"

@state
def one(vm): ...

@state
def two(vm): ...
"""
TESTS = """
import pytest

@pytest.mark.vm_state("one")
@pytest.mark.parametrize("number", range(6))
def test_one(vm, number):
    assert number != 3

@pytest.mark.vm_state("two")
@pytest.mark.parametrize("number", range(6))
def test_two(vm, number): ...

@pytest.mark.xdist_group("mine")
@pytest.mark.parametrize("number", range(5))
def test_mine(vm, number): ...

def test_groups(request):
    found = [item.get_closest_marker("xdist_group") for item in request.session.items]
    assert {mark.args for mark in found if mark} <= {("vm-one",), ("vm-two",), ("mine",)}

def test_input(pytestconfig):
    given = getattr(pytestconfig, "workerinput", {})
    assert not [name for name in given if "vmsnap" in name]  # plain data is left, for other plugins
"""


@pytest.fixture(autouse=True)
def _project(project: pytest.Pytester) -> None:
    project.makeconftest(SESSION)
    project.makepyfile(test_it=TESTS)


def test_the_header_is_shown_once_and_before_the_tests(project: pytest.Pytester) -> None:
    lines = project.runpytest_subprocess("-n2").outlines
    assert lines.count("vmsnap: DESCRIBED") == 1
    assert not any(re.match(r"[.F]+ ", line) for line in lines[: lines.index("vmsnap: DESCRIBED")])


def test_where_no_test_has_a_machine_nothing_is_shown(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("-n2", "-k", "test_input", "--vmsnap-timings")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*DESCRIBED*")
    result.stdout.no_fnmatch_line("vmsnap:*revert*")


def test_by_groups_a_state_stays_on_one_worker_and_no_name_shows_it(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("-n2", "--dist=loadgroup", "-v")
    result.assert_outcomes(passed=18, failed=1)
    where: dict[str, set[str]] = {}
    for line in result.outlines:
        if found := re.match(r"\[(gw\d)\].* (?:PASSED|FAILED) test_it\.py::(test_\w+)(\S*) *$", line):
            worker, name, rest = found.groups()
            where.setdefault(name, set()).add(worker)
            assert "@vm" not in rest
    assert len(where["test_one"]) == len(where["test_two"]) == len(where["test_mine"]) == 1
    assert where["test_one"] != where["test_two"]


def test_by_groups_what_failed_is_found_again(project: pytest.Pytester) -> None:
    project.runpytest_subprocess("-n2", "--dist=loadgroup").assert_outcomes(passed=18, failed=1)
    project.runpytest_subprocess("-n1", "--dist=loadgroup", "--lf").assert_outcomes(failed=1)
