"""QEMU in the path, missing, broken and without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.host.doctor import qemu
from pytest_vmsnap.host.libvirt import INSTALL

from ..test_emulator import CAPABILITIES, NETWORKS, NO_USER_NETWORK
from ..test_emulator import qemu as answering

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["qemu-img", "qemu-system-x86_64"])
def test_a_path_without_it_is_a_failure_that_says_what_to_install(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = qemu.image_tool() if name == "qemu-img" else qemu.program(None)[1]
    assert (found.status, found.found, found.advice) == ("failure", f"{name} is not installed", INSTALL)


def test_an_old_qemu_in_the_path_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "qemu-system-x86_64").write_text("#!/bin/sh\necho QEMU emulator version 4.2.1\n")
    (tmp_path / "qemu-system-x86_64").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    path, found = qemu.program(None)
    assert path is None
    assert (found.status, found.advice) == ("failure", INSTALL)
    assert "QEMU 4.2.1 is too old" in found.found


def test_what_a_qemu_can_do_is_told_each_on_its_own(tmp_path: Path) -> None:
    saving, network = qemu.capabilities(answering(tmp_path, schema=(NETWORKS,)), "user")
    assert (saving.name, saving.status) == ("qemu-snapshots", "ok")
    assert "x-ignore-shared" in saving.found
    assert "device state by fd:" in saving.found
    assert (network.status, network.found) == ("ok", "user-mode networking")


def test_a_qemu_that_cannot_save_may_have_its_network(tmp_path: Path) -> None:
    poor = answering(tmp_path, capabilities=CAPABILITIES[:1], schema=(NETWORKS,))
    saving, network = qemu.capabilities(poor, "user")
    assert saving.status == "failure"
    assert "x-ignore-shared" in saving.found
    assert network.status == "ok"


@pytest.mark.parametrize(("network", "status"), [("user", "failure"), ("isolated", "failure"), ("none", "ok")])
def test_a_qemu_without_user_mode_networking_fails_those_who_want_it(
    network: str, status: str, tmp_path: Path
) -> None:
    poor = answering(tmp_path, schema=(NO_USER_NETWORK,))
    _, found = qemu.capabilities(poor, network)  # type: ignore[arg-type] # one of them
    assert found.status == status
    assert ("vmsnap_network=none" in found.advice) is (status == "failure")
