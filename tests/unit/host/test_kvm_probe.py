"""The probe guest is run for real: under TCG everywhere, under KVM where the device opens."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.host import kvm_probe
from pytest_vmsnap.host.kvm_probe import probe

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def qemu() -> Path:
    """The system's QEMU."""
    found = shutil.which("qemu-system-x86_64")
    if not found:
        pytest.skip("needs qemu-system-x86_64")
    return Path(found)


@pytest.fixture
def emulator(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a program that is started as QEMU would be, and does what its text says."""

    def make(text: str) -> Path:
        path = tmp_path / "emulator"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return make


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_machine_code_is_what_the_assembly_gives(tmp_path: Path) -> None:
    if not (shutil.which("as") and shutil.which("ld") and os.uname().machine == "x86_64"):
        pytest.skip("needs GNU as and ld for x86_64")
    subprocess.run(
        ["as", "--64", "-o", tmp_path / "probe.o", "-"], input=kvm_probe.ASSEMBLY, text=True, check=True
    )
    link = ["ld", "-m", "elf_x86_64", "-Ttext=0x100000", "-e", "entry", "--oformat", "binary"]
    subprocess.run([*link, "-o", tmp_path / "probe.bin", tmp_path / "probe.o"], check=True)
    assert (tmp_path / "probe.bin").read_bytes() == kvm_probe.MACHINE_CODE


@pytest.mark.parametrize("cpu", ["max", "qemu64"])
def test_the_guest_passes_on_a_cpu_that_is_emulated(qemu: Path, cpu: str) -> None:
    assert probe(qemu, timeout=60, accel="tcg", cpu=cpu).passed


def test_the_guest_fails_on_a_cpu_without_64_bits(qemu: Path) -> None:
    outcome = probe(qemu, timeout=60, accel="tcg", cpu="qemu32")
    assert not outcome.passed
    assert outcome.reason


def test_a_wrong_result_is_no_pass(emulator: Callable[[str], Path]) -> None:
    outcome = probe(emulator(f"exit {kvm_probe.FAILED}"), timeout=10)
    assert not outcome.passed
    assert outcome.reason == "the guest computed a wrong result"


def test_the_reason_is_the_last_line_of_qemu(emulator: Callable[[str], Path]) -> None:
    text = "echo one >&2; echo 'qemu-system-x86_64: failed to initialize kvm: No such device' >&2; exit 1"
    assert probe(emulator(text), timeout=10).reason == "failed to initialize kvm: No such device"


def test_a_qemu_that_says_nothing_gives_its_status(emulator: Callable[[str], Path]) -> None:
    assert probe(emulator("exit 3"), timeout=10).reason == "QEMU ended with status 3"


def test_a_missing_qemu_is_a_reason(tmp_path: Path) -> None:
    outcome = probe(tmp_path / "none", timeout=10)
    assert outcome.reason == f"{tmp_path}/none cannot be started: No such file or directory"


def test_a_cpu_that_stopped_is_not_waited_for(emulator: Callable[[str], Path]) -> None:
    text = "printf 'KVM internal error. Suberror: 1\\nemulation failure\\nRAX=0 RBX=0\\n' >&2; exec sleep 600"
    started = time.monotonic()
    outcome = probe(emulator(text), timeout=60)
    assert outcome.reason == "KVM internal error. Suberror: 1: emulation failure"
    assert not outcome.timed_out
    assert time.monotonic() - started < 30


def test_a_guest_that_does_not_end_is_killed_in_time(emulator: Callable[[str], Path]) -> None:
    before = children(), descriptors()
    outcome = probe(emulator("exec sleep 600"), timeout=0.2)
    assert outcome.timed_out
    assert outcome.reason == "it did not finish within 0.2 s"
    assert (children(), descriptors()) == before


def test_nothing_is_left_of_a_guest_that_passed(qemu: Path) -> None:
    before = children(), descriptors()
    assert probe(qemu, timeout=60, accel="tcg", cpu="max").passed
    assert (children(), descriptors()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_another_user_can_run_the_guest(qemu: Path) -> None:
    assert probe(qemu, timeout=60, accel="tcg", cpu="max", as_user=(65534, 65534)).passed


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_the_child_has_the_ids_of_the_other_user_and_no_groups_of_ours() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        place = Path(directory, "emulator")
        place.write_text("#!/bin/sh\necho $(id -u):$(id -g):$(id -G) >&2; exit 1\n")
        place.parent.chmod(0o755)
        place.chmod(0o755)
        assert probe(place, timeout=10, as_user=(65533, 65532)).reason == "65533:65532:65532"


def test_kvm_passes_only_where_the_cpu_has_virtualisation(qemu: Path) -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("needs a /dev/kvm that opens")
    flags = {word for line in Path("/proc/cpuinfo").read_text().splitlines() for word in line.split()}
    assert probe(qemu, timeout=60).passed == bool(flags & {"vmx", "svm"})
