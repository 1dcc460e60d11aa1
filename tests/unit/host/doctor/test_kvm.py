"""What KVM needs, with devices and processors that are files made for the test."""

from __future__ import annotations

import grp
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.host import accelerator, kvm_probe
from pytest_vmsnap.host.doctor import kvm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.model import Finding

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
NOBODY = (65534, 65534)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def device(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the device's place, that everybody may open."""
    path = place / "kvm"
    path.touch()
    path.chmod(0o666)
    monkeypatch.setattr(accelerator, "DEVICE", path)
    return path


@pytest.fixture
def cpu(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A processor with AMD's virtualisation."""
    path = place / "cpuinfo"
    path.write_text("processor : 0\nflags\t\t: fpu svm hypervisor\n")
    monkeypatch.setattr(accelerator, "CPUINFO", path)
    return path


def named(wanted: str, user: tuple[int, int] | None = None) -> dict[str, Finding]:
    findings = kvm.prerequisites(wanted, user)  # type: ignore[arg-type] # one of them
    return {finding.name: finding for finding in findings}


@pytest.mark.usefixtures("cpu")
def test_where_all_is_there_all_is_well(device: Path) -> None:
    found = named("auto")
    assert [each.status for each in found.values()] == ["ok", "ok", "ok"]
    assert f"{device} (-rw-rw-rw-, user " in found["kvm-device"].found
    assert "opens for user" in found["kvm-permission"].found


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize(("wanted", "status"), [("auto", "warning"), ("kvm", "failure")])
def test_a_missing_device_is_amiss_and_its_permission_is_not_asked(
    wanted: str, status: str, device: Path
) -> None:
    device.unlink()
    found = named(wanted)
    assert (found["kvm-device"].status, found["kvm-device"].found) == (status, f"{device} is missing")
    assert "modprobe" in found["kvm-device"].advice
    assert found["kvm-permission"].found == f"not checked: no {device}"


def test_who_wants_emulation_is_not_told_of_kvm(device: Path) -> None:
    device.unlink()
    assert {(each.status, each.found) for each in named("tcg").values()} == {
        ("ok", "not checked: vmsnap_accel=tcg")
    }


@pytest.mark.usefixtures("cpu")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_device_that_does_not_open_for_us_is_amiss(device: Path) -> None:
    device.chmod(0)
    found = named("auto")["kvm-permission"]
    assert found.status == "warning"
    assert found.advice == accelerator.OPEN_TO_ALL


@as_root
@pytest.mark.usefixtures("cpu")
def test_a_device_of_a_group_is_to_be_had_by_joining_it(device: Path) -> None:
    group = grp.getgrnam("daemon")
    os.chown(device, 0, group.gr_gid)
    device.chmod(0o660)
    found = named("auto", NOBODY)["kvm-permission"]
    assert found.found == f"no permission for {device} as user nobody"
    assert "sudo usermod -aG daemon nobody" in found.advice
    assert found.advice.endswith(accelerator.OPEN_TO_ALL)


@as_root
@pytest.mark.usefixtures("cpu")
def test_a_device_that_no_group_may_open_is_not_to_be_had_by_joining_one(device: Path) -> None:
    device.chmod(0o600)
    assert named("auto", NOBODY)["kvm-permission"].advice == accelerator.OPEN_TO_ALL


@as_root
def test_who_has_joined_the_group_after_the_login_is_told_to_log_in_again(device: Path, place: Path) -> None:
    device.chmod(0o060)  # root opens it all the same, so what is asked is the advice
    os.chown(device, 0, grp.getgrnam("root").gr_gid)  # of which root is in the user database
    advice = accelerator._permission_for(0, "root", device.stat())
    assert advice.startswith("root is in the group")
    assert "log in again" in advice
    other = accelerator._permission_for(NOBODY[0], "nobody", device.stat())
    assert "usermod" in other


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    ("flags", "words"),
    [("fpu hypervisor", "this host is itself a virtual machine"), ("fpu", "neither vmx nor svm")],
)
def test_a_processor_without_virtualisation_is_amiss(cpu: Path, flags: str, words: str) -> None:
    cpu.write_text(f"flags : {flags}\n")
    found = named("auto")["kvm-cpu"]
    assert found.status == "warning"
    assert words in found.found
    assert "nested virtualisation" in found.advice


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("text", ["", None])
def test_a_processor_that_is_not_told_is_amiss(cpu: Path, text: str | None) -> None:
    cpu.write_text(text) if text is not None else cpu.unlink()
    assert named("kvm")["kvm-cpu"].status == "failure"


@pytest.mark.usefixtures("device", "cpu")
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("Y", "guests may use KVM themselves (kvm_amd.nested=Y)"),
        ("1", "guests may use KVM themselves (kvm_amd.nested=1)"),
        ("N", "guests may not use KVM themselves (kvm_amd.nested=N)"),
        (None, "is unknown"),
    ],
)
def test_nesting_is_read_from_the_module(
    value: str | None, words: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value:
        (place / "nested").write_text(f"{value}\n")
    monkeypatch.setattr(kvm, "NESTED", {"kvm_intel": place / "none", "kvm_amd": place / "nested"})
    found = named("auto")["kvm-cpu"]
    assert found.status == "ok"
    assert found.found.startswith("the CPU has svm; ")
    assert words in found.found


def emulator(place: Path, text: str) -> Path:
    path = place / "emulator"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.usefixtures("device", "cpu")
def test_the_proof_is_made_anew_each_time_and_kept_in_a_store_that_is_there(
    place: Path, tmp_path: Path
) -> None:
    program = emulator(place, f". {place}/fate")
    (place / "fate").write_text("echo 'kvm run failed' >&2; exit 1")
    before = kvm.probe("auto", program, store=tmp_path, user=None)
    assert (before.status, before.advice) == ("warning", accelerator.NO_GUEST)
    assert "10 to 50 times slower" in before.found
    assert "kvm run failed" in before.found
    (place / "fate").write_text(f"exit {kvm_probe.PASSED}")  # a run believes the record
    assert accelerator.choose("auto", emulator=program, cache=tmp_path).name == "tcg"
    assert kvm.probe("auto", program, store=tmp_path, user=None).found == "kvm: a probe guest passed"
    assert accelerator.choose("auto", emulator=program, cache=tmp_path).name == "kvm"


@pytest.mark.usefixtures("device", "cpu")
def test_a_store_that_is_not_there_is_not_made(place: Path, tmp_path: Path) -> None:
    passing = emulator(place, f"exit {kvm_probe.PASSED}")
    assert kvm.probe("auto", passing, store=tmp_path / "store", user=None).status == "ok"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("device", "cpu")
def test_kvm_that_is_wanted_and_does_not_work_is_a_failure(place: Path, tmp_path: Path) -> None:
    failing = emulator(place, "exit 1")
    found = kvm.probe("kvm", failing, store=tmp_path, user=None)
    assert found.status == "failure"
    assert "--vmsnap-accel=auto" in found.advice


def test_emulation_that_is_wanted_is_well(tmp_path: Path) -> None:
    found = kvm.probe("tcg", tmp_path / "none", store=tmp_path, user=None)
    assert (found.status, found.found) == ("ok", "tcg: requested")
