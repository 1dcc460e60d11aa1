"""A command that goes on while the test does."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ChannelError, CommandTimeout, MachineReleased
from pytest_vmsnap.model import Result

if TYPE_CHECKING:
    from pytest_vmsnap.machine.files import Files

SIGNAL_BASE = 128
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.5
PLACES = "/dev/shm /run /tmp"  # noqa: S108 - in the guest; mktemp makes a directory of our own

# $1: the command, $2: the directory of its streams. Its input is a pipe that somebody holds open.
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
# `setsid -f` leaves SIGINT as it is; a shell's `&` has the command ignore it.
START = f"""
for place in {PLACES}; do dir=$(mktemp -d "$place/vmsnap.XXXXXX" 2>/dev/null) && break; done
[ "$dir" ] && mkfifo "$dir/in" "$dir/start" || exit 1
lead=$(command -v setsid)
setsid -f sh -c {shlex.quote(KEEPER)} sh "$1" "$dir" "$lead" </dev/null >/dev/null 2>&1 ||
  {{ $lead sh -c {shlex.quote(KEEPER)} sh "$1" "$dir" "$lead" </dev/null >/dev/null 2>&1 & }}
read -r pid <"$dir/start"
echo "$pid $dir"
"""


class Process:
    """A command that runs in the guest, begun by `Machine.popen`.

    Its streams go to files in the guest's memory, so nobody has to read them for it to go on. It ends with its
    machine: after a reboot or a revert, every method raises `MachineReleased`.
    """

    def __init__(self, machine: Files, command: str, *, pid: int, place: str) -> None:
        self._machine = machine
        self._era = machine.era
        self._started = time.monotonic()
        self._place = place
        self.command = command
        self.pid = pid

    def __repr__(self) -> str:
        return f"<Process {self.pid} {self.command!r}>"

    @property
    def stdout(self) -> bytes:
        """What it has written to its standard output so far."""
        return self._read("out")

    @property
    def stderr(self) -> bytes:
        """What it has written to its standard error so far."""
        return self._read("err")

    def poll(self) -> int | None:
        """Its status as a shell gives it, or None while it runs."""
        word = self._run(f"cat {self._place}/ended 2>/dev/null || {{ [ -d {self._place} ] && echo runs; }}")
        if not word:
            raise MachineReleased(f"{self!r} is gone: the machine has booted since it was started")
        return None if word == "runs" else int(word)

    def wait(self, *, timeout: float | None = None) -> Result:
        """Wait for its end; returns its `Result`.

        Raises `CommandTimeout` with what it has printed where it still runs after `timeout` seconds (None: the
        option's); it runs on then.
        """
        __tracebackhide__ = True
        seconds = self._machine.seconds(timeout)
        deadline = time.monotonic() + seconds
        pause = FIRST_PAUSE_SECONDS
        while (status := self.poll()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise CommandTimeout(f"{self.command!r} still runs after {seconds:g} s", result=self._result(0))
            time.sleep(min(pause, left))  # the guest has no way to tell us
            pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
        return self._result(status)

    def kill(self, signal: int | str = "KILL") -> None:
        """Send a signal, by number or name, to it and what it started; nothing happens if it has ended."""
        name = shlex.quote(str(signal).upper().removeprefix("SIG"))
        if self.poll() is None:
            self._run(f"kill -s {name} -- -{self.pid} 2>/dev/null || kill -s {name} {self.pid}")

    def write(self, data: bytes | str) -> None:
        """Write to its standard input; text as UTF-8."""
        self._run(f"cat >{self._place}/in", data.encode() if isinstance(data, str) else data)

    def close_stdin(self) -> None:
        """End its standard input: it reads the end of the file."""
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
        if self._machine.era != self._era:
            raise MachineReleased(f"{self!r} is gone: its machine has been reverted since it was started")
