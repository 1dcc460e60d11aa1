"""A store whose files have changed without anybody's knowledge: size and time are as they were."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from .. import plain
from .stores import copy_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_vmsnap.model import Image, MachineSpec
    from pytest_vmsnap.session import VmsnapSession

CONFTEST = """
import pytest
from pytest_vmsnap import state

@pytest.fixture(scope="session")
def vm_spec(vm_spec):
    return vm_spec.replace(disks=[{"size": 8}])

def pytest_vmsnap_prepare(vm):
    # more than what is read before each run: damage is found when it cannot be loaded
    vm.succeed("echo base >/base; head -c 6000000 /dev/urandom >$(ls /dev/vd* | head -n 1); sync")

@state
def child(vm):
    vm.succeed("echo child >/child")
"""
TESTS = """
import pytest

def test_base(vm):
    assert vm.succeed("cat /base") == "base\\n"

@pytest.mark.vm_state("child")
def test_child(vm):
    assert vm.succeed("cat /base /child") == "base\\nchild\\n"
"""


def flip(data: bytearray) -> None:
    middle = len(data) // 2
    data[middle : middle + 4096] = bytes(byte ^ 0xFF for byte in data[middle : middle + 4096])


def zero_header(data: bytearray) -> None:
    data[:4096] = bytes(4096)


def change(path: Path, how: Callable[[bytearray], None]) -> None:
    """Change a file's content; its size, time and mode stay."""
    found = path.stat()
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    how(data)
    path.write_bytes(data)
    path.chmod(found.st_mode & 0o777)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.fixture(scope="module")
def whole(vmsnap: VmsnapSession) -> Iterator[Path]:
    """The place of a store with both states, once `damaged` has filled it."""
    assert vmsnap.facts
    assert vmsnap._engine
    place = vmsnap._engine.host.run.data / "store-whole"
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def store(
    project: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    light: tuple[str, ...],
    runner: list[str],
    whole: Path,
) -> Path:
    """The store of a project, with its states in it."""
    options = (*light, "-pno:cacheprovider", *plain.OPTIONS, "--vmsnap-standby=1")
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(f"'{option}'" for option in options))
    project.makeconftest(CONFTEST)
    project.makepyfile(test_it=TESTS)
    if not whole.exists():
        monkeypatch.setenv("VMSNAP_STORE", str(whole))
        project.run(*runner).assert_outcomes(passed=2)
    place = project.path / "store"
    copy_tree(whole, place)
    monkeypatch.setenv("VMSNAP_STORE", str(place))
    return place


def entry(store: Path, *, full: bool) -> Path:
    """The entry of the base state, or of its child."""
    return next(path for path in (store / "states").iterdir() if (path / "ram").exists() == full)


@pytest.mark.parametrize(
    ("full", "file", "how", "made_anew"),
    [
        pytest.param(True, "device-state", flip, ["base", "child"], marks=pytest.mark.thorough),
        (True, "disk1.qcow2", zero_header, ["base", "child"]),
        (False, "device-state", flip, ["child"]),
        pytest.param(False, "disk1.qcow2", zero_header, ["child"], marks=pytest.mark.thorough),
    ],
)
def test_a_state_that_cannot_be_loaded_is_made_anew_once(
    project: pytest.Pytester,
    store: Path,
    runner: list[str],
    command: Path,
    full: bool,
    file: str,
    how: Callable[[bytearray], None],
    made_anew: list[str],
) -> None:
    (path,) = entry(store, full=full).glob(file.replace("disk1", "disk*"))
    change(path, how)
    verified = project.run(command, "verify")
    assert verified.ret == 1
    verified.stdout.fnmatch_lines([f"damaged: state {made_anew[0]}@*: the content of *{path.name} changed*"])
    result = project.run(*runner)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([f"*in the store is damaged and will be rebuilt: *{path.name} *"])
    result.stdout.fnmatch_lines([f"vmsnap: {len(made_anew)} state* built*"])
    again = project.run(*runner)
    again.assert_outcomes(passed=2)
    again.stdout.no_fnmatch_line("*damaged*")
    assert project.run(command, "verify").ret == 0


@pytest.mark.thorough
def test_an_image_whose_header_is_gone_is_built_anew(
    project: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    provided: Callable[[MachineSpec], Image],
    vm_spec: MachineSpec,
    runner: list[str],
) -> None:
    disk = provided(vm_spec).disk
    assert disk
    store = project.path / "store"
    entry = copy_tree(disk.parent, store / "images" / disk.parent.name)
    change(entry / disk.name, zero_header)
    monkeypatch.setenv("VMSNAP_STORE", str(store))
    project.makepyfile("def test_it(vm): vm.succeed('true')")
    result = project.run(*runner)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*in the store is damaged and will be rebuilt: *disk.qcow2 changed*"])


def test_a_changed_page_of_memory_is_found_by_verify(
    project: pytest.Pytester, store: Path, runner: list[str], command: Path
) -> None:
    result = project.run(command, "verify")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*: no damage found"])
    child = entry(store, full=False)
    change(store / "memory" / child.name / "ram", flip)
    result = project.run(command, "verify", "--remove")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["damaged: *: the content of *ram does not match its snapshot's pages and parent"]
    )
    assert not (store / "memory" / child.name).exists()
    change(entry(store, full=True) / "ram", flip)
    result = project.run(command, "verify")
    result.stdout.fnmatch_lines(["damaged: state base@*: the content of *ram changed after it was saved"])
    project.run(command, "verify", "--remove")
    project.run(*runner).assert_outcomes(passed=2)


def test_a_damaged_state_that_is_opened_by_hand_is_called_damaged(
    project: pytest.Pytester, store: Path, command: Path
) -> None:
    path = entry(store, full=True)
    (disk,) = path.glob("disk*")
    change(disk, zero_header)
    result = project.run(command, "open", "base", "--exec", "true")
    assert result.ret != 0
    result.stderr.fnmatch_lines(["vmsnap: *cannot be opened, it is damaged: the content of *.qcow2 changed*"])
    change(path / "device-state", flip)
    result = project.run(command, "open", "base", "--exec", "true")
    assert result.ret != 0
    result.stderr.fnmatch_lines(["vmsnap: *the content of *device-state changed*"])
