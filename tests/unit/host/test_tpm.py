"""The process of a machine's TPM."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import HostError
from pytest_vmsnap.host.permissions import Permissions
from pytest_vmsnap.host.tpm import Tpm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    UseSwtpm = Callable[[str], None]


@pytest.fixture
def use_swtpm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UseSwtpm:
    """`use_swtpm(script)`: the only program on PATH is a swtpm that runs this script of sh."""

    def use(script: str) -> None:
        program = tmp_path / "bin" / "swtpm"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent))

    return use


def tpm(tmp_path: Path) -> Tpm:
    return Tpm(tmp_path / "tpm", tmp_path / "socket", Permissions(user=None))


def test_a_host_without_swtpm_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="swtpm is not installed") as caught:
        tpm(tmp_path)
    assert "sudo apt install swtpm" in (caught.value.hint or "")


def test_a_swtpm_that_ends_at_once_is_quoted(tmp_path: Path, use_swtpm: UseSwtpm) -> None:
    use_swtpm("echo 'no such state' >&2; exit 3")
    started = tpm(tmp_path)
    started.end()
    with pytest.raises(HostError, match=r"swtpm ended at once \(status 3\): no such state"):
        started.expect_running()


def test_its_socket_takes_a_connection_before_it_has_started(tmp_path: Path, use_swtpm: UseSwtpm) -> None:
    use_swtpm("exec /bin/sleep 1000")
    started = tpm(tmp_path)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(tmp_path / "socket"))
    started.expect_running()
    started.kill()
