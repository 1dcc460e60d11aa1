"""What the hooks tell the session, and what they show of it; the session is one of the test's own."""

from __future__ import annotations

import pytest

SESSION = """
import pytest
from pytest_vmsnap.session import SESSION_KEY

class Session:
    in_use = False

    def describe(self):
        return ["vmsnap: DESCRIBED"]

    def note_following(self, item):
        pass

    def begin(self, item):
        print(f"BEGUN {item.name}")

    def expect_unchanged(self, item):
        pass

    def note_end(self, item):
        print(f"ENDED {item.name}")

    def note_outcome(self, item, failed):
        print(f"NOTED {item.name} {failed}")

    def record_evidence(self, item, report):
        if report.failed:
            report.sections.append(("console of the machine", f"CONSOLE OF {item.name}"))

    def close(self):
        print("CLOSED")

@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    config.stash[SESSION_KEY].close()
    config.stash[SESSION_KEY] = Session()

@pytest.fixture
def vm():
    return "a machine"

@pytest.fixture
def broken(vm):
    yield
    raise OSError("teardown")
"""


@pytest.fixture(autouse=True)
def _session(project: pytest.Pytester) -> None:
    project.makeconftest(SESSION)


def noted(result: pytest.RunResult, name: str) -> list[str]:
    """What was noted for the phases of a test: set-up, call (if it came to that) and teardown."""
    lines = [line.partition("NOTED ")[2] for line in result.outlines if "NOTED " in line]
    return [line.split()[1] for line in lines if line.split()[0] == name]


def test_the_session_is_told_of_a_test_before_its_first_fixture(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="session", autouse=True)
        def first():
            print("FIRST FIXTURE")

        def test_it(): print("TEST")
        """
    )
    project.runpytest("-s").stdout.fnmatch_lines(["*BEGUN test_it", "*FIRST FIXTURE", "*TEST"])


@pytest.mark.parametrize("body", ["pass", "assert 0"])
def test_the_session_is_told_that_the_test_itself_has_ended_before_its_fixtures_do(
    project: pytest.Pytester, body: str
) -> None:
    project.makepyfile(
        f"""
        import pytest

        @pytest.fixture
        def first():
            yield
            print("FIXTURE ENDS")

        def test_it(first): {body}
        """
    )
    project.runpytest("-s").stdout.fnmatch_lines(["*ENDED test_it", "*FIXTURE ENDS"])


def test_the_session_is_told_of_each_phase(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        def test_passes(vm): pass
        def test_fails(vm): assert 0
        def test_skips(vm): pytest.skip("x")
        @pytest.mark.xfail
        def test_fails_as_expected(vm): assert 0
        @pytest.mark.xfail
        def test_passes_unexpectedly(vm): pass
        def test_breaks_later(broken): pass
        @pytest.fixture
        def unready(vm): raise OSError("setup")
        def test_never_starts(unready): pass
        """
    )
    result = project.runpytest("-s")
    assert noted(result, "test_passes") == ["False", "False", "False"]
    assert noted(result, "test_fails") == ["False", "True", "False"]
    assert noted(result, "test_skips") == ["False", "False", "False"]
    assert noted(result, "test_fails_as_expected") == ["False", "True", "False"]
    assert noted(result, "test_passes_unexpectedly") == ["False", "False", "False"]
    assert noted(result, "test_breaks_later") == ["False", "False", "True"]
    assert noted(result, "test_never_starts") == ["True", "False"]


@pytest.mark.parametrize(
    "source",
    [
        "def test_it(vm): assert 0",
        "def test_it(broken): pass",
        "import pytest\n@pytest.fixture\ndef unready(vm): raise OSError\ndef test_it(unready): pass",
    ],
    ids=["call", "teardown", "setup"],
)
def test_a_failure_in_any_phase_shows_the_sections_of_the_session(
    project: pytest.Pytester, source: str
) -> None:
    project.makepyfile(source)
    result = project.runpytest()
    result.stdout.fnmatch_lines(["*- console of the machine -*", "CONSOLE OF test_it"])


def test_sections_come_from_the_workers_of_xdist(project: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    project.makepyfile("def test_it(vm): assert 0")
    result = project.runpytest_subprocess("-n1")
    result.stdout.fnmatch_lines(["*- console of the machine -*", "CONSOLE OF test_it"])


def test_a_test_that_passes_shows_none(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it(vm): pass")
    project.runpytest("-rA").stdout.no_fnmatch_line("*CONSOLE OF*")


def test_the_machine_is_described_once_it_is_known_that_a_test_uses_one(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it(vm): pass\ndef test_other(): pass")
    result = project.runpytest()
    result.stdout.fnmatch_lines(["collected 2 items", "vmsnap: DESCRIBED", "*2 passed*"])


@pytest.mark.parametrize(
    "args", [("-k", "other"), ("--collect-only",), ("--deselect=test_described.py::test_it",), ("-qq",)]
)
def test_nothing_is_described_where_no_machine_will_be_used_or_nothing_is_to_be_said(
    project: pytest.Pytester, args: tuple[str, ...]
) -> None:
    project.makepyfile(test_described="def test_it(vm): pass\ndef test_other(): pass")
    result = project.runpytest(*args)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*DESCRIBED*")


def test_nothing_is_described_where_a_marker_is_wrong(project: pytest.Pytester) -> None:
    project.makepyfile("import pytest\n@pytest.mark.vm_fresh(1)\ndef test_it(vm): pass")
    result = project.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.no_fnmatch_line("*DESCRIBED*")


def test_the_session_is_closed_after_the_last_fixture_and_before_the_summary(
    project: pytest.Pytester,
) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="session")
        def long():
            yield
            print("LAST FIXTURE")

        def test_it(vm, long): pass
        """
    )
    project.runpytest("-s").stdout.fnmatch_lines(["*LAST FIXTURE*", "*CLOSED*", "*1 passed*"])


def test_the_session_is_closed_where_pytest_is_interrupted(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it(vm): raise KeyboardInterrupt")
    result = project.runpytest_subprocess("-s")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*CLOSED*"])
