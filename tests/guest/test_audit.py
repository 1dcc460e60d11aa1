"""Tests that promise to change nothing, and what is found of those that do not keep it."""

from __future__ import annotations

import pytest

LOOKING = """
import pytest

pytestmark = pytest.mark.vm_readonly

@pytest.mark.parametrize("number", range(2))
def test_looking_changes_nothing(vm, number):
    vm.succeed("ls -laR /etc /root >/dev/null; cat /etc/passwd; id; journalctl -n 3; mount")
    vm.succeed("systemctl status >/dev/null; systemctl list-units --all >/dev/null")
    vm.wait_until_succeeds("true")
    vm.popen("ls /").wait()
    vm.read_text("/etc/os-release")
    vm.snapshot("here")
    vm.succeed("rm -r /srv")
    vm.revert("here")
"""
PACKAGE = (
    "Package: added\\nVersion: 2.1\\nArchitecture: all\\nMaintainer: M <m@example.org>\\nDescription: added\\n"
)
CHANGES = {
    "much": (
        f"""
        echo >/srv/added; chmod 700 /opt; rm /etc/motd; echo >/dev/shm/added; touch -d yesterday /etc/fstab
        mount -t tmpfs none /mnt; systemd-run --unit added sleep 1000; useradd added
        sysctl -w net.ipv4.ip_forward=1
        mkdir -p /tmp/p/DEBIAN; printf '{PACKAGE}' >/tmp/p/DEBIAN/control
        dpkg-deb -b /tmp/p; dpkg -i /tmp/p.deb
        busybox nc -l -p 8000 >/dev/null 2>&1 & sleep 1
        """,
        *("mount /mnt: new", "unit mnt.mount: new", "unit added.service: new", "package added:all: new"),
        *("user added: new", "group added: new", "sysctl net.ipv4.ip_forward: 0 -> 1"),
        *("port 8000/tcp on *: new", "file /dev/shm/added: new", "file /etc/fstab: changed"),
        *("file /etc/motd: gone", "file /opt: changed", "file /srv/added: new"),
    ),
    "ending": ("systemctl poweroff >/dev/null 2>&1; sleep 1000", "the machine no longer answers: *"),
}


@pytest.mark.thorough
def test_looking_at_a_machine_changes_nothing(project: pytest.Pytester) -> None:
    project.makepyfile(LOOKING)
    result = project.runpytest_subprocess("--vmsnap-verify=audit", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2)


@pytest.mark.thorough
def test_what_a_read_only_test_changed_is_named(project: pytest.Pytester) -> None:
    commands = {name: command for name, (command, *_) in CHANGES.items()}
    project.makepyfile(
        f"""
        import pytest

        @pytest.mark.vm_readonly
        @pytest.mark.parametrize("command", {list(commands.values())!r}, ids={list(commands)!r})
        def test_it(vm, command):
            try:
                vm.run(command, check=True, timeout=10)
            except Exception:
                if "poweroff" not in command:
                    raise

        def test_that_promises_nothing(vm):
            vm.succeed("echo >/srv/added")
        """
    )
    result = project.runpytest_subprocess("--vmsnap-verify=audit", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=len(CHANGES), passed=1)
    result.stdout.no_fnmatch_line("*Traceback*")
    for name, (_, *lines) in CHANGES.items():
        said = result.stdout.str().partition(f"_ test_it[{name}] _")[2].partition("\n___")[0].splitlines()
        pytest.LineMatcher(said).fnmatch_lines_random(
            ["this test is marked vm_readonly, but it changed its machine:", *(f"  {line}" for line in lines)]
        )


@pytest.mark.thorough
def test_what_a_test_changed_that_skipped_is_not_the_next_ones_doing(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.vm_readonly

        def test_changes_and_skips(vm):
            vm.succeed("echo >/srv/added")
            pytest.skip("changed my mind")

        def test_changes_nothing(vm):
            vm.succeed("cat /srv/added")
        """
    )
    result = project.runpytest_subprocess("--vmsnap-verify=audit", "-p", "no:cacheprovider")
    result.assert_outcomes(skipped=1, passed=1)
