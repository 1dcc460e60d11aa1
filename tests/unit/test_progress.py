"""What is seen of long steps, and nothing of short ones."""

from __future__ import annotations

import threading
import time

import pytest

from pytest_vmsnap import progress
from pytest_vmsnap.progress import Progress, silent

DEADLINE = 10.0


class Lines:
    """What was written, and a way to wait for the next line."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._written = threading.Condition()

    def write(self, line: str) -> None:
        with self._written:
            self.all.append(line)
            self._written.notify_all()

    def wait_for(self, count: int) -> None:
        with self._written:
            assert self._written.wait_for(lambda: len(self.all) >= count, timeout=DEADLINE)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.01)
    monkeypatch.setattr(progress, "REPEAT_SECONDS", 0.01)


def test_a_short_step_is_not_seen(lines: Lines) -> None:
    with Progress(lines.write).step("booting"):
        pass
    assert lines.all == []


@pytest.mark.usefixtures("_quick")
def test_a_long_step_is_named_and_its_end_is_told(lines: Lines) -> None:
    with Progress(lines.write).step("booting"):
        lines.wait_for(1)
    assert lines.all[0] == "booting ..."
    assert lines.all[-1] == "booting: done after 0 s"


@pytest.mark.usefixtures("_quick")
def test_a_step_that_ends_while_its_line_is_being_written_has_its_end_told_after_it(lines: Lines) -> None:
    def write(line: str) -> None:
        lines.write(line)
        time.sleep(0.2)  # what a busy host does between a line and what follows it

    with Progress(write).step("booting"):
        lines.wait_for(1)
    assert lines.all == ["booting ...", "booting: done after 0 s"]


@pytest.mark.usefixtures("_quick")
def test_a_long_step_is_told_again_with_its_detail_and_its_time(lines: Lines) -> None:
    with Progress(lines.write).step("fetching") as step:
        lines.wait_for(1)
        step.say("120 of 300 MB")
        lines.wait_for(3)
    assert "fetching: 120 of 300 MB (0 s)" in lines.all


@pytest.mark.usefixtures("_quick")
def test_a_detail_that_is_followed_is_asked_for_when_a_line_is_due(lines: Lines) -> None:
    console = ["Booting Linux"]
    with Progress(lines.write).step("booting") as step:
        step.follow(lambda: console[-1])
        lines.wait_for(1)
        console.append("Reached target Network")
        lines.wait_for(3)
    assert lines.all[0] == "booting: Booting Linux"
    assert "booting: Reached target Network (0 s)" in lines.all


@pytest.mark.usefixtures("_quick")
def test_a_step_that_fails_is_told_as_failed(lines: Lines) -> None:
    def fail() -> None:
        with Progress(lines.write).step("booting"):
            lines.wait_for(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert lines.all[-1] == "booting: failed after 0 s"


def test_no_thread_stays_after_a_step(lines: Lines) -> None:
    with Progress(lines.write).step("booting"):
        pass
    assert "vmsnap-progress" not in [thread.name for thread in threading.enumerate()]


def test_a_line_is_written_at_once(lines: Lines) -> None:
    Progress(lines.write).say("hello")
    assert lines.all == ["hello"]


def test_silent_progress_only_logs(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level("DEBUG", logger="pytest_vmsnap"), silent().step("booting"):
        pass
    assert "booting: done" in caplog.text
    assert capsys.readouterr() == ("", "")
