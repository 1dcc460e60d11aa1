"""pytest-testinfra's own modules, over our channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_vmsnap import Machine

pytestmark = pytest.mark.vm_readonly


def test_file(vm: Machine) -> None:
    passwd = vm.testinfra.file("/etc/passwd")
    assert passwd.is_file
    assert (passwd.user, passwd.group, passwd.mode) == ("root", "root", 0o644)
    assert passwd.contains("^root:")
    assert "root" in passwd.content_string
    assert not vm.testinfra.file("/etc/nowhere").exists


def test_service(vm: Machine) -> None:
    ssh = vm.testinfra.service("ssh")
    assert ssh.is_running
    assert ssh.is_enabled
    assert not vm.testinfra.service("nowhere").is_running


def test_package(vm: Machine) -> None:
    package = vm.testinfra.package("openssh-server")
    assert package.is_installed
    assert package.version.startswith("1:")
    assert not vm.testinfra.package("apache2").is_installed


def test_user(vm: Machine) -> None:
    root = vm.testinfra.user("root")
    assert (root.uid, root.gid, root.home) == (0, 0, "/root")
    assert not vm.testinfra.user("nobody-knows").exists


def test_socket(vm: Machine) -> None:
    assert vm.testinfra.socket("tcp://0.0.0.0:22").is_listening
    assert not vm.testinfra.socket("tcp://0.0.0.0:81").is_listening


def test_sysctl(vm: Machine) -> None:
    assert vm.testinfra.sysctl("kernel.ostype") == "Linux"


def test_mount_point(vm: Machine) -> None:
    root = vm.testinfra.mount_point("/")
    assert root.exists
    assert (root.filesystem, root.device) == ("ext4", "/dev/vda")
    assert not vm.testinfra.mount_point("/nowhere").exists


def test_process(vm: Machine) -> None:
    init = vm.testinfra.process.get(pid=1)
    assert init.user == "root"
    assert len(vm.testinfra.process.filter(comm="sshd")) >= 1


def test_a_command_keeps_its_bytes_and_its_status(vm: Machine) -> None:
    done = vm.testinfra.run("printf %s; printf 'a\\0b'; echo err >&2; exit 3", "it's")
    assert (done.rc, done.stdout_bytes, done.stderr) == (3, b"it'sa\0b", "err\n")
