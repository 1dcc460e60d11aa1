"""The guest shell without a guest: its slot's loop on this host's ``sh``, and the framing."""

from __future__ import annotations

import fcntl
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from importlib.resources import files
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from pytest_vmsnap.guest.shell import install_script, source
from pytest_vmsnap.guest.shell.program import program_of
from pytest_vmsnap.guest.streams import source_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPTS = [
    *Path(str(files("pytest_vmsnap.guest.shell"))).glob("*.sh"),
    *(Path(__file__).parents[3] / name for name in ("tests/run", "tests/run-as-user", "example_project/run")),
]


class Slot:
    """The loop of one slot, in a process of this host's; commands by one pipe, input by another."""

    def __init__(self, script: Path) -> None:
        commands, self.commands = os.pipe()
        data, self.data = os.pipe()
        # sh may know no descriptors above 9
        starter = f"import os; os.dup2({commands}, 3); os.dup2({data}, 4); "
        starter += f"os.execvp('sh', ['sh', '-c', '. {script}', 'sh', 'shell', ''])"
        self._process = subprocess.Popen(
            [sys.executable, "-c", starter],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(commands, data),
            start_new_session=True,
        )
        os.close(commands)
        os.close(data)

    def say(self, text: bytes) -> None:
        os.write(self.commands, text)

    def hear(self, mark: bytes) -> bytes:
        """What it prints up to the mark, and the status behind that."""
        return self._until(mark + b" ", self._process.stdout)

    def hear_errors(self, mark: bytes) -> bytes:
        """What it prints to its standard error, up to the mark."""
        return self._until(mark, self._process.stderr)

    def _until(self, end: bytes, stream: IO[bytes] | None) -> bytes:
        assert stream
        heard = b""
        deadline = time.monotonic() + 10
        while end not in heard or not heard.endswith(b"\n"):
            assert select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0], heard
            heard += os.read(stream.fileno(), 1 << 16)
        return heard

    def kill_reader(self) -> None:
        """Kill the process that reads, when it has taken all that was said."""
        while fcntl.ioctl(self.commands, termios.FIONREAD, b"\0\0\0\0") != b"\0\0\0\0":
            pass
        reader = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().strip()
        os.kill(int(reader), signal.SIGKILL)
        while Path("/proc", reader).exists():
            pass

    def end(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # what waits for a command too
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe
            pipe.close()
        self._process.wait()
        os.close(self.commands)
        os.close(self.data)


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[Slot]:
    script = tmp_path / "guest.sh"
    script.write_text(source())
    slot = Slot(script)
    yield slot
    slot.end()


def test_a_command_is_answered_with_its_output_its_mark_and_its_status(slot: Slot) -> None:
    slot.say(b"echo out; (exit 3)\n#one\n")
    assert slot.hear(b"#one") == b"out\n#one 3\n"


def test_a_mark_whose_command_was_lost_is_passed_over(slot: Slot) -> None:
    slot.say(b"#lost\necho out\n#one\n")
    assert slot.hear(b"#one") == b"out\n#one 0\n"


def test_a_command_whose_mark_was_lost_does_not_take_the_next_one_for_it(slot: Slot) -> None:
    slot.say(b"echo first\necho second\n#two\n")
    assert slot.hear(b"#two") == b"first\nsecond\n#two 0\n"


def test_a_question_is_answered_at_any_time(slot: Slot) -> None:
    slot.say(b"?here\necho out\n?lost\n?there\n#none\necho next\n#two\n")
    assert slot.hear(b"#two") == b"?here\nout\n?lost\n?there\nnext\n#two 0\n"


def test_a_mark_of_which_a_part_was_lost_may_be_said_again(slot: Slot) -> None:
    slot.say(b"echo out\n#on")
    slot.kill_reader()
    slot.say(b"e\n#one\necho next\n#two\n")
    assert slot.hear(b"#two") == b"out\n#one 127\nnext\n#two 0\n"


def test_an_empty_line_is_no_command(slot: Slot) -> None:
    slot.say(b"\necho out\n#one\n")
    assert slot.hear(b"#one") == b"out\n#one 0\n"


@pytest.mark.parametrize(
    "script",
    [
        "echo out; echo err >&2; (exit 3)",
        "exit 3",
        "set -e; false; echo on",
        "set -u; echo $missing; echo on",
        "set -x; echo out",
        "trap 'echo bye; echo err >&2' EXIT; echo out",
        "trap 'x\nended\n' EXIT",
        "trap '' INT; echo out",
        "echo() { printf wrong; }; read() { printf wrong; }; printf out",
        "alias echo=false; echo out",
        "exec 3>/dev/null 5>&3 6>&3 7>&3; echo out",
        "exec >&2; echo out",
        "exec 1>&- 2>&-",
        "exec echo out",
        "unset IFS; IFS=a; echo banana",
        "set -f; echo *",
        "kill -s KILL $(sh -c 'echo $PPID')",
        "if",
        "return 4",
        "cd /nowhere; set -- a b; shift; echo $1",
        "readlink /proc/self/fd/3 /proc/self/fd/5 /proc/self/fd/6 /proc/self/fd/7",
    ],
)
def test_a_command_is_answered_as_by_a_shell_of_its_own(slot: Slot, script: str) -> None:
    line, _ = program_of(script.encode(), None)
    slot.say(line + b"\n#one\necho next; echo next >&2\n#two\n")
    expected = subprocess.run(["sh", "-c", script], capture_output=True, check=False)
    status = expected.returncode if expected.returncode >= 0 else 128 - expected.returncode
    assert slot.hear(b"#two") == b"%s#one %d\nnext\n#two 0\n" % (expected.stdout, status)
    assert _said(slot.hear_errors(b"#two")) == _said(expected.stderr + b"#one\nnext\n#two\n")


def _said(errors: bytes) -> bytes:
    """Without the places in the script that the shell names."""
    return re.sub(rb"^sh: (\d+: |/\S+: )*(eval: )?", b"sh: ", errors, flags=re.MULTILINE)


def test_the_process_that_ran_a_command_answers_itself(slot: Slot) -> None:
    slot.say(b"readlink /proc/$$/fd/7\n#one\n")
    assert b"/.vmsnap." in slot.hear(b"#one")


@pytest.mark.parametrize(
    ("script", "data"),
    [
        (b"", b""),
        (b"#comment\ncat", b"in"),
        (b"<x cat; cat", b"in"),
        (b"cat; echo " + b"x" * 5000, b"a\0b"),
        (b"cat", b"\n" * 5000),
        (b"true", b"unread"),
    ],
    ids=["empty", "comment", "redirection", "long", "lines", "unread"],
)
def test_a_program_gets_its_input_and_nothing_else_does(slot: Slot, script: bytes, data: bytes) -> None:
    line, sent = program_of(script, source_of(data) if data else None)
    assert b"\n" not in line
    if sent:
        os.write(slot.data, b"".join(sent.open()))
    slot.say(line + b"\n#one\necho next\n#two\n")
    heard = slot.hear(b"#two")
    expected = subprocess.run(["sh", "-c", script], input=data, capture_output=True, check=False)
    assert heard == b"%s#one %d\nnext\n#two 0\n" % (expected.stdout, expected.returncode)


def test_what_is_planted_is_the_shell_as_it_is() -> None:
    script = install_script()
    assert source().rstrip("\n") in script
    assert "@shell@" not in script
    assert "@unit@" not in script


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_has_nothing_that_shellcheck_finds(script: Path) -> None:
    found = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)
    assert found.stdout == ""
