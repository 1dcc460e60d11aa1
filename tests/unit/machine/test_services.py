"""What the guest's init says of a service, and what that means."""

from __future__ import annotations

import pytest

from pytest_vmsnap.machine.services import ServiceState, parsed, unknown_reason


@pytest.mark.parametrize(
    ("text", "init", "state"),
    [
        ("openrc 0\n * status: started\n", "openrc", "active"),
        ("openrc 3\n * status: stopped\n", "openrc", "inactive"),
        ("openrc 8\n * status: starting\n", "openrc", "inactive"),
        ("openrc 32\n * status: crashed\n", "openrc", "failed"),
        ("openrc unknown\nsshd\ncrond\n", "openrc", "unknown"),
        ("runit 0\nrun: /etc/service/sshd: (pid 712) 3s\n", "runit", "active"),
        ("runit 0\ndown: /etc/service/sshd: 3s, normally up\n", "runit", "inactive"),
        ("runit 0\nfinish: /etc/service/sshd: (pid 9) 0s\n", "runit", "inactive"),
        ("runit unknown\nsshd\n", "runit", "unknown"),
        ("sysvinit 0\nsshd is running.\n", "sysvinit", "active"),
        ("sysvinit 3\nsshd is not running ... failed!\n", "sysvinit", "inactive"),
        ("sysvinit unknown\nssh\ncron\n", "sysvinit", "unknown"),
    ],
)
def test_the_state_is_that_of_the_inits_own_command(text: str, init: str, state: str) -> None:
    found = parsed(text)
    assert (found.init, found.state) == (init, state)
    assert found.words == text.partition("\n")[2].strip()


def test_a_service_that_can_never_run_says_what_else_there_is() -> None:
    unknown = ServiceState(init="openrc", state="unknown", words="sshd\ncrond\nchronyd")
    assert unknown_reason("ssh", unknown) == "openrc does not know the service ssh\ndid you mean: sshd?"
    assert "no service has a similar name" in unknown_reason("postgresql", unknown)
    crashed = ServiceState(init="openrc", state="failed", words="* status: crashed")
    assert unknown_reason("sshd", crashed) == "the service sshd has crashed: * status: crashed"
    none = parsed("none 0\nbusybox\n")
    assert unknown_reason("sshd", none).startswith("the guest's init (busybox) has no services\n")


def test_a_service_that_may_still_run_is_waited_for() -> None:
    assert unknown_reason("sshd", ServiceState(init="runit", state="inactive", words="down: sshd")) == ""
