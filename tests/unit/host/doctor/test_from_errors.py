"""What a check raises is its finding."""

from __future__ import annotations

from pathlib import Path

from pytest_vmsnap.errors import NoHypervisor
from pytest_vmsnap.host.doctor.from_errors import asked, tried
from pytest_vmsnap.model import Finding


def test_an_error_is_a_failure_with_its_hint() -> None:
    def fails() -> str:
        raise NoHypervisor("nothing there", hint="install it")

    expected = Finding(name="it", status="failure", found="nothing there", advice="install it")
    assert asked("it", fails) == expected


def test_what_the_system_refuses_is_a_failure_too() -> None:
    value, finding = tried("it", Path("/proc/none/none").read_text, str)
    assert value is None
    assert finding.status == "failure"
    assert finding.found.endswith("No such file or directory: '/proc/none/none'")


def test_what_was_found_is_given_and_told() -> None:
    expected = Finding(name="it", status="ok", found="it is 42")
    assert tried("it", lambda: 42, lambda it: f"it is {it}") == (42, expected)
