"""The shell is installed by whichever way the image offers."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.guest import SshLogin

from .images import (
    AGENT,
    BUSYBOX,
    CLOUD_INIT,
    LOGIN_ON_CONSOLE,
    SHELL,
    SHELL_ON_CONSOLE,
    booting,
    busybox,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_vmsnap.model import Image, MachineSpec

TESTS = """
def test_one(vm):
    assert "Linux" in vm.succeed("uname -a")
    vm.succeed("echo dirty >/dirty")
    result = vm.run("printf 'a\\\\0b'; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.returncode) == (b"a\\0b", b"err\\n", 3)
    assert vm.run("cat", input=bytes(range(256)) * 500).stdout == bytes(range(256)) * 500

def test_two(vm):
    vm.fail("cat /dirty")

def test_process(vm):
    process = vm.popen("trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.1; done")
    vm.wait_until(lambda: process.stdout == b"ready\\n")
    process.kill("INT")
    assert (process.wait().returncode, process.stdout) == (7, b"ready\\ncaught\\n")
    vm.popen("sleep 31415 & sleep 31415").kill()
    vm.wait_until_fails("ps | grep '[s]leep 31415'")

def test_reboot(vm):
    before = vm.read_text("/proc/sys/kernel/random/boot_id")
    vm.reboot()
    assert vm.read_text("/proc/sys/kernel/random/boot_id") != before
"""
CLUSTER = """
import pytest

@pytest.mark.vm_cluster(server={}, client={})
def test_cluster(vm_cluster):
    server, client = vm_cluster["server"], vm_cluster["client"]
    server.reboot()
    assert server.succeed("hostname") == "server\\n"
    listen = "IO::Socket::INET->new(LocalPort => 7, Listen => 1)"
    server.succeed(f"perl -MIO::Socket::INET -e '$s = {listen}; sleep' >/dev/null 2>&1 &")
    client.wait_for_open_port(7, address="server", timeout=60)
"""
GUEST_HOME = "/root"  # of the guest's root
FIRST_BOOT = ("-k", "not reboot")  # what is installed is the same, by whichever way


pytestmark = pytest.mark.thorough


@pytest.fixture
def base_image(vm_spec: MachineSpec, provided: Callable[[MachineSpec], Image]) -> Image:
    """The image that the tests' machines start from."""
    return provided(vm_spec)


@pytest.fixture
def tests(project: pytest.Pytester) -> Path:
    return project.makepyfile(test_planted=TESTS)


@pytest.mark.usefixtures("tests")
def test_a_guest_of_busybox_alone_is_reached_by_the_shell_on_its_console(
    project: pytest.Pytester, runner: list[str], base_image: Image, tmp_path: Path
) -> None:
    initrd = busybox(base_image, tmp_path / "initrd", SHELL_ON_CONSOLE)
    result = project.run(*runner, *BUSYBOX, *booting(base_image, initrd))
    result.assert_outcomes(passed=4)


@pytest.mark.usefixtures("tests")
def test_a_guest_of_busybox_alone_is_reached_by_a_login_on_its_console(
    project: pytest.Pytester, runner: list[str], base_image: Image, tmp_path: Path
) -> None:
    crypt = ["openssl", "passwd", "-5", "sesame"]
    secret = subprocess.run(crypt, check=True, capture_output=True, text=True).stdout.strip()
    files = {**LOGIN_ON_CONSOLE, "etc/passwd": f"root:{secret}:0:0:root:/:/bin/sh\n"}
    initrd = busybox(base_image, tmp_path / "initrd", files)
    options = [*BUSYBOX, *booting(base_image, initrd), "--vmsnap-console-user=root"]
    result = project.run(*runner, *options, "--vmsnap-console-password=sesame")
    result.assert_outcomes(passed=4)
    assert "sesame" not in result.stdout.str()

    result = project.run(
        *runner,
        *options,
        "--vmsnap-console-password=open",
        "--vmsnap-refresh",
        "-k",
        "test_one",
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*serial console: the login as root was refused: check * (3 attempts)"])


@pytest.mark.usefixtures("tests")
def test_an_image_with_ssh_alone_is_reached_with_the_given_key(
    project: pytest.Pytester, runner: list[str], base_image: Image, tmp_path: Path
) -> None:
    login = SshLogin(directory=tmp_path / "ssh")
    place = f"{GUEST_HOME}/.ssh"
    keys = {f"{place}/authorized_keys": login.public() + "\n"}
    disk = without(base_image, tmp_path / "disk", [*SHELL, *AGENT], keys, directories=[place])
    result = project.run(
        *runner,
        *FIRST_BOOT,
        f"--vmsnap-image={disk}",
        *booting(base_image),
        f"--vmsnap-cmdline={base_image.cmdline}",
        f"--vmsnap-ssh-key={login.key_file()}",
    )
    result.assert_outcomes(passed=3)


@pytest.mark.usefixtures("tests")
def test_an_image_with_cloud_init_and_no_agent_is_reached_by_its_seed(
    project: pytest.Pytester,
    runner: list[str],
    vm_spec: MachineSpec,
    provided: Callable[[MachineSpec], Image],
    tmp_path: Path,
) -> None:
    built = provided(vm_spec.replace(packages=("cloud-init",)))
    disk = without(built, tmp_path / "disk", [*SHELL, *AGENT], {}, links=CLOUD_INIT)
    project.makepyfile(test_joined=CLUSTER)
    result = project.run(
        *runner, *FIRST_BOOT, f"--vmsnap-image={disk}", *booting(built), f"--vmsnap-cmdline={built.cmdline}"
    )
    result.assert_outcomes(passed=4)
