"""SSH for whoever brings a client of their own."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

import paramiko
import pytest

if TYPE_CHECKING:
    from pytest_vmsnap import Machine


def said_by(vm: Machine) -> str:
    """What a client of the test's own hears."""
    access = vm.ssh
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(access.host, access.port, access.user, key_filename=str(access.key), look_for_keys=False)
        _, out, _ = client.exec_command("cat /root/who")
        return out.read().decode()


@pytest.mark.parametrize("name", ["first", "second"])
def test_each_machine_is_reached_at_a_port_of_its_own_with_the_same_key(vm: Machine, name: str) -> None:
    vm.fail("cat /root/who")
    vm.write_text("/root/who", name)
    assert said_by(vm) == name
    assert vm.ssh == vm.ssh  # one forward, however often it is asked for


@pytest.mark.skipif(not shutil.which("ssh"), reason="the host has no SSH client")
def test_the_command_line_is_that_of_an_ssh_client(vm: Machine) -> None:
    command = [*shlex.split(vm.ssh.command), "echo $SSH_CONNECTION"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.stdout.endswith(" 22\n")


def test_a_machine_without_a_network_has_no_ssh(project: pytest.Pytester, light: tuple[str, ...]) -> None:
    project.makepyfile(
        """
        import pytest
        from pytest_vmsnap import SpecError

        def test_one(vm):
            with pytest.raises(SpecError, match="no network"):
                vm.ssh
            assert vm.succeed("ls /sys/class/net").split() == ["lo"]
        """
    )
    result = project.runpytest_subprocess(*light, "--vmsnap-network=none", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
