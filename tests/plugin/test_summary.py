"""The figures of a run, where they are shown and where not; they are made up here."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

TESTS = """
import pytest

@pytest.fixture
def timings(pytestconfig):
    return pytestconfig.pluginmanager.get_plugin("vmsnap-summary")._timings

@pytest.mark.parametrize("number", range(4))
def test_it(timings, request, number):
    timings.begin(request.node.nodeid)
    timings.note_state("base", "key", 20.0 if number == 2 else None)
    timings.note_revert("base", 0.25, number > 0)
"""
LINE = "vmsnap: 1 state built (20 s), 4 reverts, 250 ms at the median, 3 of 4 made ahead"


@pytest.fixture(autouse=True)
def _project(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=TESTS)


@pytest.mark.parametrize("arguments", [(), ("-v",), ("-n2",)])
def test_they_are_a_line_of_the_summary(project: pytest.Pytester, arguments: tuple[str, ...]) -> None:
    if "-n2" in arguments:
        pytest.importorskip("xdist")
    lines = project.runpytest_subprocess(*arguments).outlines
    assert lines.count(LINE) == 1
    assert not any("vmsnap timings" in line for line in lines)


def test_with_quiet_nothing_is_shown_that_was_not_asked_for(project: pytest.Pytester) -> None:
    assert LINE not in project.runpytest_subprocess("-q").outlines
    assert LINE in project.runpytest_subprocess("-q", "--vmsnap-timings").outlines


@pytest.mark.parametrize("arguments", [("-qq",), ("-k", "nothing"), ("--collect-only",)])
def test_with_twice_quiet_and_without_machines_nothing_is_shown(
    project: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    result = project.runpytest_subprocess(*arguments, "--vmsnap-timings")
    result.stdout.no_fnmatch_line("vmsnap: *state*")
    result.stdout.no_fnmatch_line("*vmsnap timings*")


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_tables_and_junit_have_them_by_test(project: pytest.Pytester, workers: tuple[str, ...]) -> None:
    if workers:
        pytest.importorskip("xdist")
    result = project.runpytest_subprocess("--vmsnap-timings", "--junitxml=j.xml", *workers)
    result.stdout.fnmatch_lines(
        [
            "=* vmsnap timings =*",
            "base       20 s        4  250 ms   250 ms      3 of 4",
            "250 ms        1      * of 1  test_it.py::test_it*",
            LINE,
        ]
    )
    suite = ElementTree.parse(project.path / "j.xml").find("testsuite")
    assert suite is not None
    found = {each.attrib["name"]: each.attrib["value"] for each in suite.findall("properties/property")}
    assert found == {
        "vmsnap_states_built": "1",
        "vmsnap_build_seconds": "20.000",
        "vmsnap_states_from_registry": "0",
        "vmsnap_states_from_system_store": "0",
        "vmsnap_states_from_store": "0",
        "vmsnap_reverts": "4",
        "vmsnap_revert_seconds_median": "0.2500",
        "vmsnap_made_ahead": "3",
    }
    first = next(case for case in suite.findall("testcase") if case.attrib["name"] == "test_it[0]")
    assert [(each.attrib["name"], each.attrib["value"]) for each in first.iter("property")] == [
        ("vmsnap_state", "base"),
        ("vmsnap_revert_seconds", "0.25"),
        ("vmsnap_standby", "made"),
    ]
