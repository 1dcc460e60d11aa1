"""Machines of the system's libvirt daemon, which runs QEMU as a user of its own.

The suite starts a daemon for these tests, and ends it; so they need root, and a host where none runs.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.host import processes, uri

from ... import plain
from ..images import CMDLINE, SHELL_INSTALLED, busybox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vmsnap.session import VmsnapSession

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a system daemon is started by root only")

DAEMONS = ("virtlogd", "libvirtd")  # the first records consoles for the second
BESIDE = ("unshare", "--mount")
OWNER = 4321


@contextmanager
def daemons(cache: Path, wait_for: Callable[..., None], *, kvm: bool) -> Iterator[None]:
    """The system's daemons, with a place of their own for what they learn of QEMU."""
    script = f"mount --bind {cache} /var/cache/libvirt/qemu; "
    if not kvm:
        script += "[ ! -e /dev/kvm ] || mount --bind /dev/null /dev/kvm; "
    started = [
        subprocess.Popen([*BESIDE, "sh", "-ec", f"{script} exec {name}"], stderr=subprocess.DEVNULL)
        for name in DAEMONS
    ]
    try:
        wait_for(uri.system_daemon_answers, "libvirtd", 60)
        yield
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, wait_for: Callable[..., None]) -> Iterator[None]:
    """A system daemon that answers, of this suite's own.

    libvirt probes QEMU as root, and anew at each start (50 s) where it then found a KVM that QEMU's user may
    not open. So it learns of QEMU where there is none, and finds that when it is started again.
    """
    if uri.system_daemon_answers():
        yield
        return
    cache = tmp_path_factory.mktemp("libvirt")
    with daemons(cache, wait_for, kvm=False):
        subprocess.run(["virsh", "-c", "qemu:///system", "capabilities"], check=True, stdout=subprocess.DEVNULL)
    with daemons(cache, wait_for, kvm=True):
        yield


@pytest.fixture(scope="module")
def image(vmsnap: VmsnapSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person's image that only its owner may read; with a kernel and an initrd that boot fast beside it."""
    from pytest_vmsnap.image import provide
    from pytest_vmsnap.model import MachineSpec
    from pytest_vmsnap.progress import silent
    from pytest_vmsnap.states import image_request

    request = image_request(MachineSpec(image="debian:trixie"), root=Path("/"))
    found = provide(request, store=vmsnap.store, progress=silent())
    directory = tmp_path_factory.mktemp("person")
    sources = {"disk.qcow2": found.disk, "kernel": found.kernel, "debian-initrd": found.initrd}
    sources["initrd"] = busybox(found, tmp_path_factory.mktemp("initrd") / "initrd", SHELL_INSTALLED)
    for name, source in sources.items():
        assert source is not None
        copy = directory / name
        subprocess.run(["cp", "--sparse=always", source, copy], check=True)
        copy.chmod(0o600)
        os.chown(copy, OWNER, OWNER)
    cmdline = directory / "debian-cmdline"
    cmdline.write_text(found.cmdline or "")
    os.chown(cmdline, OWNER, OWNER)
    return directory


@pytest.fixture(scope="module")
def store() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="vmsnap-system-", dir="/var/tmp"))
    directory.chmod(0o711)
    yield directory / "store"
    shutil.rmtree(directory)


@pytest.fixture
def command(daemon: None, image: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """pytest on that image, as root, with nothing said of a URI."""
    monkeypatch.delenv("VMSNAP_URI", raising=False)
    monkeypatch.setenv("PYTEST_ADDOPTS", plain.ADDOPTS)
    return [
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--vmsnap-store={store}"),
        *(f"--vmsnap-image={image}/disk.qcow2", f"--vmsnap-kernel={image}/kernel"),
        *(f"--vmsnap-initrd={image}/initrd", f"--vmsnap-cmdline={CMDLINE}"),
    ]


@pytest.mark.usefixtures("daemon")
def test_the_doctor_asks_the_daemon_and_looks_as_the_user_that_qemu_runs_as(
    store: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VMSNAP_URI", raising=False)
    command = [sys.executable, Path(sys.executable).with_name("vmsnap"), f"--store={store}", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0, told
    assert told["uri"]["found"] == "qemu:///system (root, and the system's daemon answers)"
    assert told["daemon"]["found"] == "qemu:///system answers"
    user = told["qemu-user"]["found"].removeprefix("QEMU runs as ").partition(",")[0]
    assert pwd.getpwnam(user).pw_uid != 0
    assert f"user {user}" in told["kvm-permission"]["found"] or told["kvm-device"]["status"] != "ok"


def described(directory: Path) -> list[tuple[str, int, int, int]]:
    return [
        (path.name, found.st_uid, found.st_gid, found.st_mode)
        for path in sorted(directory.iterdir())
        for found in [path.stat()]
    ]


def test_root_gets_the_daemon_and_a_persons_image_keeps_owner_and_mode(
    command: list[str], image: Path, store: Path, pytester: pytest.Pytester
) -> None:
    before = described(image)
    assert before[0][1] == OWNER
    pytester.makepyfile(
        """
        import os, pathlib
        import pytest

        def test_one(vm):
            vm.succeed("echo changed | dd of=/dev/vda conv=notrunc,fsync")

        def test_two(vm, vmsnap):
            assert vm.succeed("head -c 7 /dev/vda") != "changed"
            assert vmsnap.facts.uri.uri == "qemu:///system"
            pid = vm._backend.domain.pid()
            assert os.stat(f"/proc/{pid}").st_uid != 0
            memory = vm._allocation.origin.snapshot.memory.file().path
            assert memory.stat().st_mode & 0o007 == 0

        @pytest.mark.vm_cluster(one={}, two={})
        def test_cluster(vm_cluster):
            address = vm_cluster.network.address("one").ipv4
            vm_cluster["two"].wait_until_succeeds(f"ping -c 1 -W 5 {address}")
            assert os.stat(vm_cluster._lease.switch.path_of("one")).st_mode & 0o007 == 0

        def test_fails(vm):
            vm.succeed("echo in memory >/dev/mark")
            vm.snapshot("before")  # the disk of a kept machine is one on another then
            assert 0
        """
    )
    keeping = [*command, "--vmsnap-keep=failed"]
    done = subprocess.run(keeping, cwd=pytester.path, capture_output=True, text=True, check=False)
    assert "1 failed, 3 passed" in done.stdout, done.stdout + done.stderr
    assert "qemu:///system (root, and the system's daemon answers)" in done.stdout
    opening = [Path(sys.executable).with_name("vmsnap"), f"--store={store}", "open", "test_fails"]
    opened = subprocess.run(
        [*opening, "--exec", "cat /dev/mark"], cwd=pytester.path, capture_output=True, text=True, check=False
    )
    assert opened.stdout == "in memory\n", opened.stderr
    assert described(image) == before
    assert not list((store / "runs").iterdir())


def test_what_uefi_and_a_tpm_store_is_the_machines_here_too(command: list[str], image: Path) -> None:
    cmdline = (image / "debian-cmdline").read_text()
    options = [f"--vmsnap-initrd={image}/debian-initrd", f"--vmsnap-cmdline={cmdline}"]
    tests = ["-k", "variables_and or next_test", Path(__file__).parents[1] / "test_firmware.py"]
    done = subprocess.run([*command, *options, *tests], capture_output=True, text=True, check=False)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert "vmsnap: qemu:///system" in done.stdout


def test_states_that_another_mode_has_built_are_used(command: list[str], pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        from pytest_vmsnap import state

        @state
        def child(vm):
            vm.succeed("echo child >/child; echo on disk | dd of=/dev/vda conv=notrunc,fsync")
        """
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.vm_state("child")
        def test_it(vm):
            assert vm.succeed("cat /child; head -c 7 /dev/vda") == "child\\non disk"
            vm.succeed("dd if=/dev/vda of=/dev/null bs=1M count=100")  # what is below is read
        """
    )
    built = subprocess.run(
        [*command, "--vmsnap-uri=qemu:///embed"], capture_output=True, text=True, check=False
    )
    assert "1 passed" in built.stdout, built.stdout + built.stderr
    used = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "1 passed" in used.stdout, used.stdout + used.stderr
    assert "vmsnap: qemu:///system" in used.stdout
    assert "building" not in used.stdout
    assert "preparing" not in used.stdout


def test_others_on_the_host_cannot_reach_into_the_store(store: Path) -> None:
    assert store.stat().st_mode & 0o007 == 0


def test_a_store_that_qemu_cannot_reach_is_named(command: list[str], pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_one(vm): ...")
    pytester.path.chmod(0o700)
    done = subprocess.run(
        [*command, f"--vmsnap-store={pytester.path}/deep"],
        cwd=pytester.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 error" in done.stdout, done.stdout + done.stderr
    assert re.search(r"cannot reach the store \S*deep", done.stdout)
    assert "--vmsnap-store" in done.stdout


def test_a_killed_run_leaves_no_qemu(
    command: list[str], store: Path, pytester: pytest.Pytester, wait_for: Callable[..., None]
) -> None:
    pytester.makepyfile(
        """
        import pathlib, time

        def test_stands_still(vm):
            pathlib.Path("ready").touch()
            time.sleep(1000)
        """
    )
    run = subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(lambda: (pytester.path / "ready").exists() or run.poll() is not None, "a machine")
        (run_id,) = [path.name for path in (store / "runs").iterdir() if path.is_dir()]
        ours = f"vmsnap-{run_id}-"
        assert any(name.startswith(ours) for _, name in processes.qemus())
        run.kill()
        wait_for(lambda: not any(n.startswith(ours) for _, n in processes.qemus()), "the end of its QEMU", 5.0)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
