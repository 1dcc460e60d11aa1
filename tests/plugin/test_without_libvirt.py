"""Hosts without libvirt: all that needs no machine works and starts nothing; VM tests say what to install."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Bare

THREE_TESTS = """
def test_one(vm): pass
def test_two(vm): pass
def test_three(vm_module): pass
def test_without(): pass
"""


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("--help",), ["*--vmsnap-image=*"]),
        (
            ("--markers",),
            [
                "@pytest.mark.vm_fresh(): *",
                "@pytest.mark.vm_readonly(): *",
                "@pytest.mark.vm_state(name): *",
                "@pytest.mark.vm(*memory*",
            ],
        ),
        (
            ("--fixtures",),
            [f"{name}*" for name in ("vm ", "vm_class ", "vm_module ", "vm_session ", "vm_spec ", "vmsnap ")],
        ),
        (("--fixtures-per-test",), ["*fixtures used by test_one*"]),
        (("--setup-plan",), ["*test_one (fixtures used: *vm*)*"]),
        (("--collect-only",), ["*test_one*", "*4 tests collected*"]),
        (("-k", "without"), ["*1 passed*"]),
        (("--version",), ["pytest *"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_needs_no_machine_works_and_starts_nothing(
    project: pytest.Pytester, bare: Bare, args: tuple[str, ...], expected: list[str]
) -> None:
    project.makepyfile(THREE_TESTS)
    result = project.runpytest_subprocess(*args, "-W", "error")
    assert result.ret == pytest.ExitCode.OK
    for line in expected:
        result.stdout.fnmatch_lines([line])
    assert bare.what_was_tried() == []
    assert bare.what_was_made() == []


@pytest.mark.usefixtures("bare")
def test_every_fixture_has_its_help(
    project: pytest.Pytester,
) -> None:
    result = project.runpytest_subprocess("--fixtures")
    listed = str(result.stdout).partition("fixtures defined from pytest_vmsnap")[2]
    ours = listed.partition("fixtures defined")[0]
    for name in ("vm", "vm_class", "vm_module", "vm_session", "vm_spec", "vmsnap"):
        assert f"\n{name} " in ours
    assert "no docstring available" not in ours


@pytest.mark.usefixtures("bare")
def test_by_default_vm_tests_error_at_set_up_the_first_in_full_and_the_others_in_a_line(
    project: pytest.Pytester,
) -> None:
    project.makepyfile(THREE_TESTS)
    result = project.runpytest_subprocess()
    result.assert_outcomes(passed=1, errors=3)
    failures = str(result.stdout).partition("= ERRORS =")[2].partition("short test summary")[0]
    first, *others = failures.split("ERROR at setup of ")[1:]
    for words in ("apt install libvirt-dev", "dnf install libvirt-devel", "pacman -S libvirt pkgconf"):
        assert first.count(words) == 1
    assert len(others) == 2
    for text in others:
        told = [line for line in text.splitlines()[1:] if line.strip(" _=")]
        assert len(told) == 1
        assert "libvirt" in told[0]
        assert told[0].endswith("::test_one)")  # the test that has it in full


@pytest.mark.usefixtures("bare")
def test_with_skip_vm_tests_are_skipped_with_the_reason(
    project: pytest.Pytester,
) -> None:
    project.makepyfile(THREE_TESTS)
    result = project.runpytest_subprocess("--vmsnap-missing=skip", "-rs")
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines(["SKIPPED*libvirt*"])
    assert "apt install" not in str(result.stdout)


def test_without_the_plugin_nothing_of_it_is_left(project: pytest.Pytester) -> None:
    source = "def test_one(pytestconfig): assert not hasattr(pytestconfig.hook, 'pytest_vmsnap_prepare')"
    project.makepyfile(source)
    result = project.runpytest_subprocess("-p", "no:vmsnap", "-W", "error")
    result.assert_outcomes(passed=1)
    for words in ("--help", "--markers", "--fixtures"):
        listed = str(project.runpytest_subprocess("-p", "no:vmsnap", words).stdout)
        for name in ("--vmsnap-", "vmsnap_", "vm_fresh", "vm_session", "pytest_vmsnap"):
            assert name not in listed
