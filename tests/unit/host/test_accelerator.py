"""The choice, with devices and emulators that are files made for the test; the real ones at the end."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import AcceleratorError
from pytest_vmsnap.host import accelerator, kvm_probe
from pytest_vmsnap.host.accelerator import choose, demote

if TYPE_CHECKING:
    from collections.abc import Iterator

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
NOBODY = (65534, 65534)


class Emulator:
    """A program in QEMU's place, which counts its starts."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "emulator"
        self._starts = directory / "starts"

    def becomes(self, text: str) -> Path:
        self.path.write_text(f"#!/bin/sh\necho start >>{self._starts}\n{text}\n")
        self.path.chmod(0o755)
        return self.path

    def passes(self) -> Path:
        return self.becomes(f"exit {kvm_probe.PASSED}")

    @property
    def starts(self) -> int:
        return len(self._starts.read_text().splitlines()) if self._starts.exists() else 0


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def emulator(place: Path) -> Emulator:
    return Emulator(place)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def device(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the device's place, that everybody may open."""
    path = place / "kvm"
    path.touch()
    path.chmod(0o666)
    monkeypatch.setattr(accelerator, "DEVICE", path)
    return path


def flags(monkeypatch: pytest.MonkeyPatch, directory: Path, words: str) -> None:
    (directory / "cpuinfo").write_text(f"processor : 0\nflags\t\t: fpu {words}\n")
    monkeypatch.setattr(accelerator, "CPUINFO", directory / "cpuinfo")


@pytest.mark.usefixtures("device")
def test_auto_gives_kvm_where_a_probe_guest_passes(emulator: Emulator, cache: Path) -> None:
    found = choose("auto", emulator=emulator.passes(), cache=cache)
    assert (found.name, found.reason, found.hint) == ("kvm", "a probe guest passed", "")


@pytest.mark.usefixtures("device")
def test_auto_gives_tcg_and_says_why_where_the_guest_fails(emulator: Emulator, cache: Path) -> None:
    failing = emulator.becomes("echo 'qemu-system-x86_64: kvm run failed Bad address' >&2; exit 1")
    found = choose("auto", emulator=failing, cache=cache)
    assert found.name == "tcg"
    assert found.reason.endswith("opens, but no guest runs: kvm run failed Bad address")
    assert "nested virtualisation" in found.hint


def test_a_missing_device_gives_tcg_without_a_probe(device: Path, emulator: Emulator, cache: Path) -> None:
    device.unlink()
    found = choose("auto", emulator=emulator.passes(), cache=cache)
    assert (found.name, found.reason) == ("tcg", f"{device} is missing")
    assert "modprobe" in found.hint
    assert emulator.starts == 0


@as_root
def test_a_user_without_permission_gets_tcg_and_the_commands_that_give_it(
    device: Path, emulator: Emulator, cache: Path
) -> None:
    device.chmod(0o660)
    found = choose("auto", emulator=emulator.passes(), cache=cache, as_user=NOBODY)
    assert found.name == "tcg"
    assert found.reason == f"no permission for {device} as user nobody"
    assert "sudo usermod -aG kvm nobody" in found.hint
    assert "udevadm trigger --name-match=kvm" in found.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_we_without_permission_get_tcg(device: Path, emulator: Emulator, cache: Path) -> None:
    device.chmod(0)
    assert choose("auto", emulator=emulator.passes(), cache=cache).reason.startswith("no permission for")


@as_root
@pytest.mark.usefixtures("device")
def test_another_user_that_may_open_the_device_gets_kvm(place: Path, emulator: Emulator, cache: Path) -> None:
    passing = emulator.becomes(f"test $(id -u) = {NOBODY[0]} && exit {kvm_probe.PASSED}")
    (place / "starts").touch()
    (place / "starts").chmod(0o666)
    assert choose("auto", emulator=passing, cache=cache, as_user=NOBODY).name == "kvm"


@pytest.mark.parametrize(("mode", "permitted"), [(0o666, True), (0o660, False), (0o664, False)])
def test_who_cannot_become_the_other_user_goes_by_the_mode(device: Path, mode: int, permitted: bool) -> None:
    device.chmod(mode)
    assert accelerator._permits(device.stat(), (54321, 54321)) is permitted


def test_a_group_of_the_user_counts(device: Path) -> None:
    device.chmod(0o060)
    assert accelerator._permits(device.stat(), (54321, device.stat().st_gid))


@pytest.mark.parametrize(("words", "name"), [("svm", "kvm"), ("vmx", "kvm"), ("hypervisor", "tcg")])
def test_who_cannot_probe_goes_by_the_flags_of_the_cpu(
    words: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flags(monkeypatch, tmp_path, words)
    assert accelerator._unprobed().name == name


@pytest.mark.usefixtures("device")
def test_the_probe_runs_once_for_each_boot_of_the_host(
    emulator: Emulator, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = choose("auto", emulator=emulator.passes(), cache=cache)
    assert choose("auto", emulator=emulator.path, cache=cache) == first
    assert emulator.starts == 1
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(accelerator, "BOOT_ID", tmp_path / "boot_id")
    assert choose("auto", emulator=emulator.path, cache=cache) == first
    assert emulator.starts == 2


@pytest.mark.usefixtures("device")
def test_a_failed_probe_is_remembered_too(emulator: Emulator, cache: Path) -> None:
    found = choose("auto", emulator=emulator.becomes("exit 1"), cache=cache)
    assert choose("auto", emulator=emulator.path, cache=cache) == found
    assert emulator.starts == 1


@pytest.mark.usefixtures("device")
def test_an_updated_emulator_is_probed_anew(emulator: Emulator, cache: Path) -> None:
    choose("auto", emulator=emulator.becomes("exit 1"), cache=cache)
    assert choose("auto", emulator=emulator.passes(), cache=cache).name == "kvm"


def test_a_kvm_that_was_loaded_anew_is_probed_anew(device: Path, emulator: Emulator, cache: Path) -> None:
    choose("auto", emulator=emulator.passes(), cache=cache)
    device.chmod(0o606)  # as udev does to a new device
    choose("auto", emulator=emulator.path, cache=cache)
    assert emulator.starts == 2


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("text", ["", "{", "[]", '{"of": 1}', "\udcff"])
def test_a_damaged_record_is_no_record(emulator: Emulator, cache: Path, text: str) -> None:
    cache.mkdir()
    (cache / accelerator.RECORD).write_text(text, errors="surrogateescape")
    assert choose("auto", emulator=emulator.passes(), cache=cache).name == "kvm"


@pytest.mark.usefixtures("device")
def test_a_directory_that_cannot_be_written_costs_only_the_record(emulator: Emulator, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    assert choose("auto", emulator=emulator.passes(), cache=blocked / "cache").name == "kvm"


@pytest.mark.usefixtures("device")
def test_the_record_is_the_only_file(emulator: Emulator, cache: Path) -> None:
    choose("auto", emulator=emulator.passes(), cache=cache)
    demote(cache, emulator.path, "died")
    assert [path.name for path in cache.iterdir()] == [accelerator.RECORD]


@pytest.mark.usefixtures("device")
def test_a_busy_host_is_asked_again(
    emulator: Emulator, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flags(monkeypatch, tmp_path, "svm")
    monkeypatch.setattr(accelerator, "AUTO_SECONDS", 0.2)
    slow = emulator.becomes("exec sleep 600")
    assert choose("auto", emulator=slow, cache=cache).reason.endswith("it did not finish within 0.2 s")
    choose("auto", emulator=slow, cache=cache)
    assert emulator.starts == 2


@pytest.mark.usefixtures("device")
def test_a_host_that_cannot_is_not_waited_for_twice(
    emulator: Emulator, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flags(monkeypatch, tmp_path, "hypervisor")
    monkeypatch.setattr(accelerator, "AUTO_SECONDS", 0.2)
    slow = emulator.becomes("exec sleep 600")
    choose("auto", emulator=slow, cache=cache)
    choose("auto", emulator=slow, cache=cache)
    assert emulator.starts == 1


@pytest.mark.usefixtures("device")
def test_after_a_kernel_died_auto_gives_tcg(emulator: Emulator, cache: Path) -> None:
    assert choose("auto", emulator=emulator.passes(), cache=cache).name == "kvm"
    demote(cache, emulator.path, "emulation failure")
    found = choose("auto", emulator=emulator.path, cache=cache)
    assert (found.name, found.reason) == ("tcg", "a guest died under KVM: emulation failure")
    assert str(cache / accelerator.RECORD) in found.hint


@pytest.mark.usefixtures("device")
def test_who_asks_for_kvm_after_a_kernel_died_gets_it(emulator: Emulator, cache: Path) -> None:
    demote(cache, emulator.passes(), "emulation failure")
    assert choose("kvm", emulator=emulator.path, cache=cache).name == "kvm"


@pytest.mark.usefixtures("device")
def test_kvm_that_does_not_work_is_an_error_never_tcg(emulator: Emulator, cache: Path) -> None:
    failing = emulator.becomes("echo 'kvm run failed' >&2; exit 1")
    with pytest.raises(AcceleratorError, match=r"KVM was requested, .* kvm run failed") as caught:
        choose("kvm", emulator=failing, cache=cache)
    assert "nested virtualisation" in caught.value.hint
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - our own


@pytest.mark.usefixtures("device")
def test_kvm_asked_for_is_probed_again_after_a_failure(emulator: Emulator, cache: Path) -> None:
    choose("auto", emulator=emulator.becomes("exit 1"), cache=cache)
    with pytest.raises(AcceleratorError):
        choose("kvm", emulator=emulator.path, cache=cache)
    assert emulator.starts == 2


def test_tcg_opens_no_device_and_starts_nothing(device: Path, emulator: Emulator, cache: Path) -> None:
    device.unlink()
    os.mkfifo(device)  # who opens this for reading waits for ever
    found = choose("tcg", emulator=emulator.passes(), cache=cache)
    assert (found.name, found.reason) == ("tcg", "requested")
    assert emulator.starts == 0
    assert not cache.exists()


def test_this_host_gets_what_it_can_do(cache: Path) -> None:
    """With the real device, QEMU and CPU flags, whatever they are."""
    qemu = shutil.which("qemu-system-x86_64")
    if not qemu:
        pytest.skip("needs qemu-system-x86_64")
    found = choose("auto", emulator=Path(qemu), cache=cache)
    can = accelerator._cpu_has_virtualisation() and os.access("/dev/kvm", os.R_OK | os.W_OK)
    assert found.name == ("kvm" if can else "tcg")
    assert found.reason
    assert bool(found.hint) is (not can)
