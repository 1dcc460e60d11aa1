from __future__ import annotations

import pytest

from pytest_vmsnap.errors import HostError
from pytest_vmsnap.host import uri


@pytest.mark.parametrize(
    ("uid", "answers", "expected"),
    [
        (1000, False, "qemu:///session"),
        (1000, True, "qemu:///session"),
        (0, True, "qemu:///system"),
        (0, False, "qemu:///embed"),
    ],
)
def test_who_runs_decides_where_nothing_is_set(uid: int, answers: bool, expected: str) -> None:
    assert uri.choose(None, uid=uid, system_answers=answers).uri == expected


@pytest.mark.parametrize("wanted", ["qemu:///session", "qemu:///system", "qemu:///embed"])
def test_the_option_has_the_last_word(wanted: str) -> None:
    found = uri.choose(wanted, uid=0, system_answers=True)
    assert (found.uri, found.reason) == (wanted, "vmsnap_uri")


@pytest.mark.parametrize("wanted", ["qemu+ssh://host/system", "qemu://host/system", "qemu+tcp://h/system"])
def test_another_host_is_refused_with_what_is_allowed(wanted: str) -> None:
    with pytest.raises(HostError, match=r"must run on this host(?s:.*)qemu:///session"):
        uri.choose(wanted, uid=0, system_answers=True)


@pytest.mark.parametrize("wanted", ["lxc:///", "qemu:///embed?root=/x", "test:///default", "nonsense"])
def test_what_is_no_qemu_here_is_refused(wanted: str) -> None:
    with pytest.raises(HostError, match=r"(?s)vmsnap_uri=.*use one of"):
        uri.choose(wanted, uid=0, system_answers=True)
