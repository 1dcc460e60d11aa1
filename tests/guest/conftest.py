"""Tests on real machines, by the plugin itself: they need libvirt and QEMU."""

from __future__ import annotations

import os
import pty
import pwd
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import image
from pytest_vmsnap.progress import Progress
from pytest_vmsnap.states import image_request

from .. import plain
from .images import BUSYBOX, SHELL_INSTALLED, booting, busybox
from .terminal import Person

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vmsnap import Machine
    from pytest_vmsnap.model import Image, MachineSpec
    from pytest_vmsnap.session import VmsnapSession

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("hypervisor")


def pytest_vmsnap_prepare(vm: Machine) -> None:
    vm.write_text("/root/prepared", "by the conftest\n")
    vm.write_text("/dev/shm/known-good", "in memory\n")
    vm.succeed("sleep 424242 >/dev/null 2>&1 &")
    vm.succeed("date -s @$(($(date +%s) - 86400))")  # the state is a day old


@pytest.fixture
def project(
    pytester: pytest.Pytester, vmsnap: VmsnapSession, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """A project of its own whose pytest, run as a process, uses this run's store: its image is there."""
    monkeypatch.setenv("HOME", pwd.getpwuid(os.getuid()).pw_dir)  # pytester's is too deep for libvirt's sockets
    monkeypatch.setenv("VMSNAP_STORE", str(vmsnap.store.path))
    monkeypatch.setenv("VMSNAP_URI", vmsnap.facts.uri.uri)
    monkeypatch.setenv("PYTEST_ADDOPTS", plain.ADDOPTS)
    return pytester


@pytest.fixture
def own_store(
    project: pytest.Pytester, vmsnap: VmsnapSession, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The place of an empty store that `project` uses, in this run's directory; it is removed with the test."""
    assert vmsnap.facts
    assert vmsnap._engine
    store = vmsnap._engine.host.run.data / f"store-{project.path.name}"
    assert not store.exists()
    monkeypatch.setenv("VMSNAP_STORE", str(store))
    yield store
    if store.exists():
        shutil.rmtree(store)


@pytest.fixture
def provided(vmsnap: VmsnapSession) -> Callable[[MachineSpec], Image]:
    """`provided(spec)`: the image that a machine of `spec` starts from."""

    def provide(spec: MachineSpec) -> Image:
        request = image_request(spec, root=vmsnap.settings.root)
        return image.provide(request, store=vmsnap.store, progress=Progress(print))

    return provide


@pytest.fixture
def light(
    provided: Callable[[MachineSpec], Image], vm_spec: MachineSpec, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, ...]:
    """Options for a project whose tests need any machine: one of busybox alone boots in a third of the time.

    It is the same in all tests, so that they may share what is made of it.
    """
    built = provided(vm_spec)
    initrd = tmp_path_factory.getbasetemp() / "light-initrd"
    if not initrd.exists():
        busybox(built, initrd, SHELL_INSTALLED)
    return (*BUSYBOX, *booting(built, initrd))


@pytest.fixture
def runner() -> list[str]:
    """The command that runs pytest."""
    return [sys.executable, "-m", "pytest"]


@pytest.fixture
def qemus() -> Callable[[str], list[int]]:
    """Process ids of the QEMUs whose domain's name begins with a prefix; one that is not reaped has ended."""
    from pytest_vmsnap.host import processes

    return lambda prefix: [pid for pid, name in processes.qemus() if name.startswith(prefix)]


@pytest.fixture
def is_root() -> bool:
    return os.geteuid() == 0


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., None]:
    """`wait_for(probe, what, seconds=180)`: until the probe is true. The default is a boot's time, loaded.

    `pause` is the time between two probes, in seconds.
    """

    def wait(probe: Callable[[], object], what: str, seconds: float = 180.0, pause: float = 0.05) -> None:
        deadline = time.monotonic() + seconds
        while not probe():
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
            time.sleep(pause)

    return wait


@pytest.fixture
def at_terminal(project: pytest.Pytester) -> Iterator[Callable[..., tuple[Person, subprocess.Popen[bytes]]]]:
    started = []

    def start(*command: str) -> tuple[Person, subprocess.Popen[bytes]]:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=project.path, start_new_session=True
        )
        os.close(theirs)
        started.append(process)
        return Person(ours), process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def command() -> Path:
    """The command `vmsnap`."""
    return Path(sys.executable).with_name("vmsnap")
