"""libvirt where it cannot be asked: what is installed."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.host.doctor import packages
from pytest_vmsnap.host.libvirt import INSTALL

if TYPE_CHECKING:
    from pathlib import Path


def program(directory: Path, name: str, text: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\n{text}\n")
    (directory / name).chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is the whole path."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def test_python_and_pytest_are_told() -> None:
    found = packages.python()
    assert found.status == "ok"
    assert found.found.startswith(f"{platform.python_version()}, pytest {pytest.__version__}, pytest-vmsnap ")


@pytest.mark.usefixtures("path")
def test_without_a_daemon_it_says_what_to_install() -> None:
    found = packages.installed_libvirt("no binding", directories=())
    assert (found.status, found.found) == ("failure", "neither virtqemud nor libvirtd is installed")
    assert found.advice == INSTALL


def test_the_daemons_version_is_told_with_why_it_was_not_asked(path: Path) -> None:
    program(path, "libvirtd", "echo 'libvirtd (libvirt) 10.6.0'")
    found = packages.installed_libvirt("it does not answer", directories=())
    assert found.status == "ok"
    assert found.found == f"10.6.0 is installed ({path}/libvirtd); it does not answer"


def test_a_daemon_beside_an_ordinary_users_path_is_found(path: Path, tmp_path: Path) -> None:
    beside = tmp_path / "sbin"
    beside.mkdir()
    program(beside, "virtqemud", "echo 'virtqemud (libvirt) 11.3.0'")
    assert list(path.iterdir()) == []
    found = packages.installed_libvirt("", directories=(str(beside),))
    assert found.found.startswith("11.3.0 is installed")


def test_an_old_libvirt_is_a_failure(path: Path) -> None:
    program(path, "libvirtd", "echo 'libvirtd (libvirt) 6.0.0'")
    found = packages.installed_libvirt("", directories=())
    assert (found.status, found.advice) == ("failure", INSTALL)
    assert "libvirt 6.0.0 is too old: 9.0 or later" in found.found
