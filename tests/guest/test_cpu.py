"""Machines with a named processor: it starts, and the guest sees it."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("cpu", "flag", "none"),
    [
        pytest.param("x86-64-v2", "sse4_2", "avx", marks=pytest.mark.thorough),
        ("x86-64-v3", "avx2", "avx512f"),
    ],
)
def test_a_guest_sees_the_processor_that_was_asked_for(
    project: pytest.Pytester, light: tuple[str, ...], cpu: str, flag: str, none: str
) -> None:
    project.makepyfile(
        f"""
        def test_it(vm):
            flags = vm.succeed("grep -m 1 ^flags /proc/cpuinfo").split()
            assert {flag!r} in flags
            assert {none!r} not in flags
            vm.snapshot("one")
            vm.revert("one")
        """
    )
    result = project.runpytest_subprocess(*light, f"--vmsnap-cpu={cpu}", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
