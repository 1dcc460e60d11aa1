"""States: what is declared, and which are usage errors at collection."""

from __future__ import annotations

import pytest

STATES = """
from pytest_vmsnap import state

@state
def installed(vm): pass

@state(parent=installed)
def configured(vm): pass
"""
TESTS = """
import pytest

@pytest.mark.vm_state("configured")
def test_one(vm): pass
"""


def collected(project: pytest.Pytester, *args: str) -> pytest.RunResult:
    return project.runpytest_subprocess("--strict-markers", "--collect-only", "-q", "-W", "error", *args)


def refusal(project: pytest.Pytester, *args: str) -> str:
    result = collected(project, *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "Traceback" not in str(result.stdout) + str(result.stderr)
    return "\n".join(result.errlines)


def test_states_in_a_conftest_a_test_module_and_a_plugin_are_found(project: pytest.Pytester) -> None:
    project.makeconftest(STATES)
    project.makepyfile(
        more_states="from pytest_vmsnap import state\n@state(parent='configured')\ndef of_plugin(vm): pass",
        test_it="""
        import pytest
        from pytest_vmsnap import state
        from conftest import installed
        from pytest_vmsnap.session import SESSION_KEY

        @state(parent="of_plugin")
        def of_module(vm): pass

        @pytest.mark.vm_state("of_module")
        class TestAll:
            def test_one(self, pytestconfig):
                tree = pytestconfig.stash[SESSION_KEY].tree
                names = [declaration.name for declaration in tree.lineage("of_module")]
                assert names == ["installed", "configured", "of_plugin", "of_module"]
        """,
    )
    project.syspathinsert()
    project.runpytest_subprocess("-p", "more_states").assert_outcomes(passed=1)


def test_a_state_that_nobody_declares_is_refused_with_those_that_there_are(project: pytest.Pytester) -> None:
    project.makeconftest(STATES)
    project.makepyfile(TESTS.replace("configured", "configurd"))
    assert refusal(project).splitlines()[:2] == [
        "ERROR: test_a_state_that_nobody_declares_is_refused_with_those_that_there_are.py::test_one: "
        "vm_state('configurd'): there is no state 'configurd'",
        "did you mean configured? the states are base, configured (conftest.py), installed (conftest.py)",
    ]


def test_a_state_to_refresh_that_nobody_declares_is_refused(project: pytest.Pytester) -> None:
    project.makeconftest(STATES)
    project.makepyfile(TESTS)
    message = refusal(project, "--vmsnap-refresh-state=base,instaled")
    assert "--vmsnap-refresh-state=instaled: there is no state 'instaled'\ndid you mean installed?" in message
    assert collected(project, "--vmsnap-refresh-state=installed", "--vmsnap-refresh").ret == pytest.ExitCode.OK


def test_two_states_of_one_name_are_refused_with_their_files(project: pytest.Pytester) -> None:
    project.makeconftest(STATES)
    project.makepyfile(test_it=f"{TESTS}\nfrom pytest_vmsnap import state\n@state\ndef installed(vm): pass")
    message = refusal(project)
    assert "two states are called installed: in conftest.py:3 and in test_it.py:" in message


@pytest.mark.parametrize(
    ("parent", "words"), [("gone", "there is no state 'gone'"), ("one", "one from two from")]
)
def test_a_parent_that_is_none_or_leads_back_is_refused(
    project: pytest.Pytester, parent: str, words: str
) -> None:
    source = "from pytest_vmsnap import state\n@state(parent='two')\ndef one(vm): pass\n"
    project.makeconftest(f"{source}\n@state(parent={parent!r})\ndef two(vm): pass")
    project.makepyfile("def test_one(): pass")
    assert words in refusal(project)


def test_what_can_be_no_state_is_refused_when_it_is_read(project: pytest.Pytester) -> None:
    project.makeconftest("from pytest_vmsnap import state\n@state\ndef installed(): pass")
    project.makepyfile(TESTS)
    result = collected(project)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*@state on installed (*conftest.py:*): the function takes (), but must take exactly one argument*"]
    )


def test_under_xdist_too(project: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    project.makeconftest(STATES)
    project.makepyfile(TESTS.replace("configured", "gone"))
    result = project.runpytest_subprocess("-n2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *test_one: vm_state('gone'): there is no state 'gone'"])
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
