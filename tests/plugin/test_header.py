"""What is said before collection: only what is static, and only if something is configured."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _one_test(project: pytest.Pytester) -> None:
    project.makepyfile("def test_one(): pass")


def header(project: pytest.Pytester, *args: str) -> list[str]:
    result = project.runpytest(*args)
    result.assert_outcomes(passed=1)
    return [line for line in result.outlines if line.startswith("vmsnap:")]


def test_where_nothing_is_configured_nothing_is_said(project: pytest.Pytester) -> None:
    assert header(project) == []


def test_a_value_that_is_the_default_is_not_said(project: pytest.Pytester) -> None:
    assert header(project, "--vmsnap-memory=512M") == []


def test_what_is_configured_is_said_in_one_line_with_its_origin(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMSNAP_REVERT", "marked")
    project.makefile(".ini", pytest="[pytest]\nvmsnap_image = images/disk.raw")
    assert header(project, "--vmsnap-memory=2G") == [
        "vmsnap: image=images/disk.raw (ini), memory=2048 (command line), revert=marked (environment)"
    ]


def test_credentials_are_not_said(project: pytest.Pytester) -> None:
    address = "https://me:hunter2@example.org/disk.qcow2?token=hunter2"
    lines = header(project, f"--vmsnap-image={address}", f"--vmsnap-image-sha256={'a' * 64}")
    assert "image=https://***@example.org/disk.qcow2?*** (command line)" in lines[0]
    assert "hunter2" not in lines[0]


def test_a_variable_that_is_named_as_ours_and_is_no_option_is_said(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMSNAP_MY_OWN_THING", "hunter2")
    assert header(project) == ["vmsnap: VMSNAP_MY_OWN_THING in the environment is not a known option"]


def test_the_quiet_header_is_empty(project: pytest.Pytester) -> None:
    assert header(project, "-q", "--vmsnap-memory=2G") == []
