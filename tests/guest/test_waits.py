"""Waiting for a real guest."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import CommandFailed, WaitTimeout

if TYPE_CHECKING:
    from pytest_vmsnap import Machine

UNIT = "[Service]\nExecStart=/bin/sh -c '{}'\n"
SERVER = (
    'perl -MIO::Socket::INET -e \'$s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 7777,'
    " Listen => 5, ReuseAddr => 1); sleep 1000' >/dev/null 2>&1 &"
)


@pytest.mark.smoke
def test_a_command_is_tried_until_it_succeeds(vm: Machine) -> None:
    vm.succeed("(sleep 1; echo done >/root/flag) >/dev/null 2>&1 &")
    assert vm.wait_until_succeeds("cat /root/flag", timeout=30) == "done\n"
    vm.wait_for_file("/root/flag", timeout=5)


def test_a_command_is_tried_until_it_fails(vm: Machine) -> None:
    vm.succeed("touch /root/flag", "(sleep 1; rm /root/flag) >/dev/null 2>&1 &")
    vm.wait_until_fails("test -e /root/flag", timeout=30)


def test_a_wait_ends_by_its_deadline_with_the_last_output(vm_module: Machine) -> None:
    started = time.monotonic()
    with pytest.raises(WaitTimeout) as caught:
        vm_module.wait_until_succeeds("echo still not; echo why >&2; false", timeout=1)
    assert "still not" in str(caught.value)
    assert "why" in str(caught.value)
    assert isinstance(caught.value, TimeoutError)
    assert time.monotonic() - started < 60


def test_a_probe_of_the_tests_own_is_called_until_it_is_true(vm_module: Machine) -> None:
    seen = []

    def probe() -> str:
        seen.append(vm_module.succeed("echo x"))
        return "".join(seen) if len(seen) == 3 else ""

    assert vm_module.wait_until(probe, timeout=30) == "x\nx\nx\n"


def test_a_unit_is_waited_for(vm: Machine) -> None:
    vm.write_text("/run/systemd/system/late.service", UNIT.format("sleep 1000"))
    vm.succeed("systemctl start --no-block late.service")
    vm.wait_for_unit("late.service", timeout=30)
    assert vm.succeed("systemctl is-active late") == "active\n"


def test_a_unit_that_failed_ends_the_wait_with_its_journal(vm: Machine) -> None:
    vm.write_text("/run/systemd/system/bad.service", UNIT.format("echo my last words; exit 3"))
    vm.run("systemctl start bad.service")
    vm.wait_until_succeeds("systemctl is-failed bad.service")
    with pytest.raises(CommandFailed, match=r"(?s)bad\.service failed.*my last words"):
        vm.wait_for_unit("bad.service", timeout=30)


def test_a_unit_that_systemd_does_not_know_ends_the_wait_with_names_like_it(vm_module: Machine) -> None:
    with pytest.raises(
        CommandFailed, match=r"(?s)systemd does not know it.*did you mean: systemd-journald\.service"
    ):
        vm_module.wait_for_unit("systemd-journal")


def test_a_unit_whose_file_systemd_cannot_use_ends_the_wait_with_its_words(vm: Machine) -> None:
    vm.write_text("/run/systemd/system/odd.service", "[Service]\nType=oneshot\n")
    with pytest.raises(CommandFailed, match=r"(?s)cannot use its file \(bad-setting\).*has a bad unit file"):
        vm.wait_for_unit("odd")
    vm.succeed("ln -s /dev/null /run/systemd/system/off.service")
    with pytest.raises(CommandFailed, match=r"(?s)off cannot become active: it is masked\n.*systemctl unmask"):
        vm.wait_for_unit("off")


def test_a_unit_that_is_about_to_be_started_or_made_is_waited_for(vm: Machine) -> None:
    vm.write_text("/run/systemd/system/late.service", UNIT.format("sleep 1000"))
    vm.succeed(
        "(sleep 2; systemctl start late; mkdir -p /tmp/here; mount -t tmpfs here /tmp/here) >/dev/null 2>&1 &"
    )
    vm.wait_for_unit("late.service")
    vm.wait_for_unit("tmp-here.mount")


def test_a_unit_that_stays_inactive_is_named_at_the_deadline(vm_module: Machine) -> None:
    with pytest.raises(WaitTimeout, match=r"(?s)nowhere\.mount.*inactive"):
        vm_module.wait_for_unit("nowhere.mount", timeout=0.5)


# A service that runs in each guest: of systemd, busybox, runit (the guest shell), of OpenRC and sysvinit.
SERVICE = """
if [ -d /run/systemd/system ]; then echo systemd-journald
elif [ -x /etc/init.d/syslogd ]; then echo syslogd
elif [ "$(cat /proc/1/comm)" = runit ]; then echo vmsnap-shell
else echo udev
fi
"""


@pytest.mark.contract
def test_a_service_of_the_guests_own_init_is_waited_for(vm: Machine) -> None:
    vm.wait_for_service(vm.succeed(SERVICE).strip())
    with pytest.raises(CommandFailed, match="does not know"):
        vm.wait_for_service("nosuch")


def test_a_port_is_waited_for_until_it_opens_and_until_it_closes(vm: Machine) -> None:
    vm.wait_for_closed_port(7777, timeout=5)
    vm.succeed(SERVER)
    vm.wait_for_open_port(7777, timeout=30)
    vm.succeed("pkill perl")
    vm.wait_for_closed_port(7777, timeout=30)


def test_an_address_is_tried_by_a_connection(vm: Machine) -> None:
    vm.succeed(SERVER)
    vm.wait_for_open_port(7777, address="127.0.0.1", timeout=30)
    vm.wait_for_closed_port(7777, address="10.0.2.15", timeout=30)
    with pytest.raises(WaitTimeout, match="port 7778 of localhost to be open"):
        vm.wait_for_open_port(7778, timeout=0.5)


def test_a_port_that_nothing_can_try_is_neither_open_nor_closed(vm: Machine) -> None:
    vm.succeed("rm -f /bin/bash /usr/bin/bash $(command -v nc)")
    for wait in (vm.wait_for_open_port, vm.wait_for_closed_port):
        with pytest.raises(CommandFailed, match="the guest has neither nc nor bash"):
            wait(7777, address="10.0.2.15", timeout=30)


def test_the_console_is_searched_from_the_tests_start(vm: Machine) -> None:
    assert "Linux version" not in vm.console_log
    vm.succeed("echo token-1234 >/dev/console")
    assert vm.wait_for_console_text(r"token-(\d+)", timeout=30)[1] == "1234"
    with pytest.raises(WaitTimeout, match="token-1234"):
        vm.wait_for_console_text("never said", timeout=0.5)
