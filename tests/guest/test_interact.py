"""A shell for a person, at a terminal of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from pytest_vmsnap import Machine

    from .terminal import Person

TESTS = """
def test_by_hand(vm):
    vm.succeed("echo before >/root/mark")
    vm.interact()
    assert vm.read_text("/root/mark") == "by hand\\n"
    assert vm.succeed("echo well") == "well\\n"
"""


@pytest.mark.parametrize("channel", ["shell", "ssh"])
def test_a_person_has_a_shell_with_a_terminal(
    project: pytest.Pytester,
    runner: list[str],
    at_terminal: Callable[..., tuple[Person, subprocess.Popen[bytes]]],
    channel: str,
) -> None:
    project.makepyfile(TESTS)
    person, process = at_terminal(*runner, f"--vmsnap-channel={channel}")
    person.wait(r"a shell in vmsnap-\S+; `exit` continues the test")
    person.type("tty; echo $((6*7)) $TERM\n")
    person.wait(r"/dev/pts/\d")
    person.wait(r"42 \w")
    person.wait(r"root@\S+")
    person.type("sh -c 'echo run$((20+3)); read -r line'\n")
    person.wait(r"run23")
    person.type("\x03")  # Ctrl-C is the guest's
    person.wait(r"root@\S+")
    person.type("echo by hand >/root/mark\n")
    person.wait(r"root@\S+")
    person.type("exit\n")
    person.wait(r"1 passed")
    assert process.wait(60) == 0


def test_without_a_terminal_it_says_so(vm: Machine) -> None:
    from pytest_vmsnap.errors import HostError

    with pytest.raises(HostError, match="needs a terminal"):
        vm.interact()
