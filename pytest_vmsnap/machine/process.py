"""A command in the guest that runs in the background."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ChannelError, CommandTimeout, MachineReleased
from pytest_vmsnap.model import Result

if TYPE_CHECKING:
    from pytest_vmsnap.machine.files import Files

SIGNAL_BASE = 128
STILL_RUNNING = -1  # in the place of a status
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.5
TEMP_DIRS = "/dev/shm /run /tmp"  # noqa: S108 - in the guest; mktemp(1) makes a private directory there

# $1: the command; $2: the directory of its streams; $3: "setsid" or empty. A `sleep` holds its input open.
KEEPER = """
sleep 2147483647 <>"$2/in" &
holder=$!
echo "$holder" >"$2/holder"
$3 sh -c 'echo $$ >"$2/start"; exec sh -c "$1"' sh "$1" "$2" <"$2/in" >"$2/out" 2>"$2/err"
status=$?
kill "$holder"
echo "$status" >"$2/status"
mv "$2/status" "$2/ended"
"""
# In the background by setsid(1), since a shell makes what it starts with `&` ignore SIGINT. The first starts a
# session, so the second has to fork, and does not wait for its child. busybox's has no option -f for this.
START = f"""
for place in {TEMP_DIRS}; do dir=$(mktemp -d "$place/vmsnap.XXXXXX" 2>/dev/null) && break; done
[ "$dir" ] && mkfifo "$dir/in" "$dir/start" || exit 1
lead=$(command -v setsid)
setsid setsid sh -c {shlex.quote(KEEPER)} sh "$1" "$dir" "$lead" </dev/null >/dev/null 2>&1 ||
  {{ sh -c {shlex.quote(KEEPER)} sh "$1" "$dir" "" </dev/null >/dev/null 2>&1 & }}
read -r pid <"$dir/start"
echo "$pid $dir"
"""


class Process:
    """A command that runs in the guest in the background, started by `Machine.popen`.

    `command` is its text, `pid` its process ID in the guest. Its output goes to files in the guest's memory, so
    it never blocks on output. It ends with its machine: after a revert, every method raises `MachineReleased`;
    after a reboot, `poll`, `wait` and `kill` do, and the others raise `ChannelError`.
    """

    def __init__(self, machine: Files, command: str, *, pid: int, place: str) -> None:
        self._machine = machine
        self._generation = machine.generation
        self._started = time.monotonic()
        self._place = place
        self.command = command
        self.pid = pid

    def __repr__(self) -> str:
        return f"<Process {self.pid} {self.command!r}>"

    @property
    def stdout(self) -> bytes:
        """What it has written to standard output so far; raises as `Machine.read_bytes` does."""
        return self._read("out")

    @property
    def stderr(self) -> bytes:
        """What it has written to standard error so far; raises as `Machine.read_bytes` does."""
        return self._read("err")

    def poll(self) -> int | None:
        """Return its exit status as a shell reports it, or None while it is running."""
        word = self._run(f"cat {self._place}/ended 2>/dev/null || {{ [ -d {self._place} ] && echo runs; }}")
        if not word:
            raise MachineReleased(f"{self!r} is gone: the machine was rebooted after it had started")
        return None if word == "runs" else int(word)

    def wait(self, *, timeout: float | None = None) -> Result:
        """Wait until it ends; return its `Result`.

        Raises `CommandTimeout` if it is still running after `timeout` seconds (None means the option's). Its
        `result` then has the output so far, and -1 as the return code. The process keeps running.
        """
        __tracebackhide__ = True
        seconds = self._machine.seconds(timeout)
        deadline = time.monotonic() + seconds
        pause = FIRST_PAUSE_SECONDS
        while (status := self.poll()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise CommandTimeout(
                    f"{self.command!r} is still running after {seconds:g} s", result=self._result(STILL_RUNNING)
                )
            time.sleep(min(pause, left))  # the guest cannot notify the host
            pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
        return self._result(status)

    def kill(self, signal: int | str = "KILL") -> None:
        """Send a signal, by number or name, to it and everything it started. Does nothing if it has ended."""
        name = shlex.quote(str(signal).upper().removeprefix("SIG"))
        if self.poll() is None:
            # without `--`, which busybox's kill(1) takes for a process ID
            self._run(f"kill -{name} -{self.pid} 2>/dev/null || kill -{name} {self.pid}")

    def write(self, data: bytes | str) -> None:
        """Write to its standard input; text is sent as UTF-8."""
        self._run(f"cat >{self._place}/in", data.encode() if isinstance(data, str) else data)

    def close_stdin(self) -> None:
        """Close its standard input, so that it reads an end of file."""
        self._run(f"kill $(cat {self._place}/holder)")

    def _result(self, status: int) -> Result:
        return Result(
            command=self.command,
            returncode=status,
            signal=status - SIGNAL_BASE if status > SIGNAL_BASE else None,
            stdout=self.stdout,
            stderr=self.stderr,
            duration=time.monotonic() - self._started,
        )

    def _read(self, name: str) -> bytes:
        self._expect_present()
        return self._machine.read_bytes(f"{self._place}/{name}")

    def _run(self, text: str, data: bytes = b"") -> str:
        self._expect_present()
        done = self._machine.run(text, input=data)
        if done.stderr:
            raise ChannelError(f"{self!r}: {done.stderr.decode(errors='replace').strip()}")
        return done.text.strip()

    def _expect_present(self) -> None:
        if self._machine.generation != self._generation:
            raise MachineReleased(f"{self!r} is gone: the machine was reverted after it had started")
