"""A shell for a person, at a terminal of the test's own."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vmsnap import Machine

TESTS = """
def test_by_hand(vm):
    vm.succeed("echo before >/root/mark")
    vm.interact()
    assert vm.read_text("/root/mark") == "by hand\\n"
    assert vm.succeed("echo well") == "well\\n"
"""


class Person:
    """Whoever sits at the terminal: types, and reads what is shown."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def wait(self, pattern: str, seconds: float = 90.0) -> None:
        """Until it is shown, behind what was waited for before."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline, f"{pattern!r} is not in {self.seen[-2000:]!r}"
            if select.select([self._descriptor], [], [], 1.0)[0]:
                try:
                    self.seen += os.read(self._descriptor, 1 << 16).decode(errors="replace")
                except OSError:  # the process has ended
                    pytest.fail(f"{pattern!r} is not in {self.seen[-2000:]!r}")
        self.seen = self.seen[found.end() :]


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


@pytest.mark.parametrize("channel", ["shell", "ssh"])
def test_a_person_has_a_shell_with_a_terminal(
    project: pytest.Pytester,
    runner: list[str],
    at_terminal: Callable[..., tuple[Person, subprocess.Popen[bytes]]],
    channel: str,
) -> None:
    project.makepyfile(TESTS)
    person, process = at_terminal(*runner, f"--vmsnap-channel={channel}")
    person.wait(r"a shell in vmsnap-\S+; `exit` goes on with the test")
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
