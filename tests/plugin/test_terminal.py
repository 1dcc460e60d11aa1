"""Lines that are seen at once, on a line of their own, while pytest captures."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

DEADLINE = 60.0


@pytest.fixture(autouse=True)
def _said(project: pytest.Pytester) -> None:
    """Tests that have a line written, twice, before and within them."""
    project.makeconftest(
        """
        import pytest
        from pytest_vmsnap.plugin import TERMINAL_KEY

        @pytest.fixture
        def say(pytestconfig):
            write = pytestconfig.stash[TERMINAL_KEY].write
            write("SAID BEFORE")
            write("SAID AGAIN")
            return write
        """
    )
    project.makepyfile(
        test_a="def test_one(say): say('SAID WITHIN')\ndef test_two(): pass",
        test_b="def test_three(say): print('captured')",
    )


def lines(project: pytest.Pytester, *args: str) -> list[str]:
    result = project.runpytest_subprocess(*args)
    assert result.ret == pytest.ExitCode.OK
    return result.outlines


def between(found: Sequence[str], first: str) -> list[str]:
    """The lines from that which begins with `first` to the summary, without those that are empty."""
    start = next(number for number, line in enumerate(found) if line.startswith(first))
    return [line.rstrip() for line in found[start:-1] if line.strip()]


@pytest.mark.parametrize("capture", ["fd", "sys", "no"])
def test_a_line_stands_alone_between_the_dots(project: pytest.Pytester, capture: str) -> None:
    found = between(lines(project, f"--capture={capture}", "-o", "console_output_style=classic"), "test_a.py")
    assert [line for line in found if "captured" not in line] == [
        "test_a.py",
        "vmsnap: SAID BEFORE",
        "vmsnap: SAID AGAIN",
        "vmsnap: SAID WITHIN",
        "..",
        "test_b.py",
        "vmsnap: SAID BEFORE",
        "vmsnap: SAID AGAIN",
        ".",
    ]


def test_with_verbose_the_test_is_named_anew_after_it(project: pytest.Pytester) -> None:
    assert between(lines(project, "-v", "-o", "console_output_style=classic"), "test_a.py") == [
        "test_a.py::test_one",
        "vmsnap: SAID BEFORE",
        "vmsnap: SAID AGAIN",
        "vmsnap: SAID WITHIN",
        "test_a.py::test_one PASSED",
        "test_a.py::test_two PASSED",
        "test_b.py::test_three",
        "vmsnap: SAID BEFORE",
        "vmsnap: SAID AGAIN",
        "test_b.py::test_three PASSED",
    ]


def test_with_quiet_it_is_still_seen(project: pytest.Pytester) -> None:
    found = between(lines(project, "-q", "-o", "console_output_style=classic"), "vmsnap")
    assert found[:4] == ["vmsnap: SAID BEFORE", "vmsnap: SAID AGAIN", "vmsnap: SAID WITHIN", ".."]


@pytest.mark.parametrize("args", [("-qq",), ("-qq", "-n1"), ("-p", "no:terminal")])
def test_with_twice_quiet_and_without_a_terminal_nothing_is_seen(
    project: pytest.Pytester, args: tuple[str, ...]
) -> None:
    if "-n1" in args:
        pytest.importorskip("xdist")
    assert "SAID" not in "\n".join(lines(project, *args))


def test_under_xdist_a_line_has_its_workers_name(project: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    found = lines(project, "-n1", "-o", "console_output_style=classic")
    assert between(found, "1 worker")[1:] == [
        "vmsnap: [gw0] SAID BEFORE",
        "vmsnap: [gw0] SAID AGAIN",
        "vmsnap: [gw0] SAID WITHIN",
        "..",
        "vmsnap: [gw0] SAID BEFORE",
        "vmsnap: [gw0] SAID AGAIN",
        ".",
    ]


SLOWLY = """
import time

import pytest

@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        write = config.get_terminal_writer().write
        def slowly(text, **markup):
            if ".py::" in text:
                time.sleep(0.3)
            write(text, **markup)
        config.get_terminal_writer().write = slowly
"""


@pytest.mark.parametrize("slowly", [False, True])
def test_under_xdist_with_verbose_every_line_stands_alone(project: pytest.Pytester, slowly: bool) -> None:
    pytest.importorskip("xdist")
    if slowly:  # the worker's lines come while pytest is in the midst of its own
        project.makepyfile(slow=SLOWLY)
    args = ("-pslow",) if slowly else ()
    found = lines(project, "-n1", "-v", "-o", "console_output_style=classic", *args)
    # a worker's lines come by a way of their own: some before xdist's, some behind them
    wanted = [
        "test_a.py::test_one",
        "vmsnap: [gw0] SAID BEFORE",
        "vmsnap: [gw0] SAID AGAIN",
        "vmsnap: [gw0] SAID WITHIN",
        "[gw0] PASSED test_a.py::test_one",
        "test_a.py::test_two",
        "[gw0] PASSED test_a.py::test_two",
        "test_b.py::test_three",
        "vmsnap: [gw0] SAID BEFORE",
        "vmsnap: [gw0] SAID AGAIN",
        "[gw0] PASSED test_b.py::test_three",
    ]
    assert sorted(line for line in map(str.rstrip, found) if line in wanted) == sorted(wanted)


def test_what_is_not_seen_is_logged(project: pytest.Pytester) -> None:
    found = lines(project, "-qq", "-rP", "--log-level=debug")
    assert any(line.startswith("DEBUG") and "SAID BEFORE" in line for line in found)


def test_it_is_no_part_of_what_the_test_printed(project: pytest.Pytester) -> None:
    found = lines(project, "-rP")
    printed = found[next(number for number, line in enumerate(found) if "Captured stdout" in line) :]
    assert printed[1] == "captured"
    assert "SAID" not in "\n".join(line for line in printed if "DEBUG" not in line)


def test_a_line_is_seen_while_the_test_still_runs(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_a="""
        import os

        def test_one(say):
            with open(os.environ["GATE"]) as gate:
                gate.read()
        """
    )
    gate = project.path / "gate"
    os.mkfifo(gate)
    command = [sys.executable, "-m", "pytest", "test_a.py"]
    with subprocess.Popen(
        command, cwd=project.path, stdout=subprocess.PIPE, text=True, env=os.environ | {"GATE": str(gate)}
    ) as process:
        assert process.stdout is not None
        ending = threading.Timer(DEADLINE, process.kill)  # it then has no further line
        ending.start()
        seen = next((line for line in process.stdout if "SAID BEFORE" in line), "")
        ending.cancel()
        if seen:  # else nobody reads
            gate.open("w").close()  # the test goes on only now
        assert seen == "vmsnap: SAID BEFORE\n"
        assert process.wait(DEADLINE) == 0
