"""What broke is told in full once, and what is the host's fault with where to look."""

from __future__ import annotations

import pytest

from pytest_vmsnap.errors import DOCTOR, BootError, HostError, NoHypervisor, VmsnapError
from pytest_vmsnap.session.failures import Failures


def told(failures: Failures, error: VmsnapError, where: str) -> str:
    with pytest.raises(VmsnapError) as caught, failures.report_once(None, where):
        raise error
    return str(caught.value)


@pytest.mark.parametrize("kind", [HostError, NoHypervisor])
def test_an_error_about_the_host_points_to_the_doctor_the_first_time(kind: type[HostError]) -> None:
    failures = Failures()
    assert told(failures, kind("broken", hint="mend it"), "test_one") == f"broken\nmend it\n{DOCTOR}"
    assert told(failures, kind("broken"), "test_two") == "broken (see test_one)"


def test_an_error_that_is_told_again_in_full_points_there_once() -> None:
    failures, error = Failures(), HostError("broken")
    told(failures, error, "the header")
    failures.clear()
    assert told(failures, error, "test_one") == f"broken\n{DOCTOR}"


def test_an_error_about_something_else_does_not_point_there() -> None:
    assert DOCTOR not in told(Failures(), BootError("no boot"), "test_one")
