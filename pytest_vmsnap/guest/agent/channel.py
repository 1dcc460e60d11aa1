"""The QEMU guest agent as a channel (QEMU, "QEMU Guest Agent protocol reference").

The agent captures at most 16 MiB of a stream, and sets a flag but no error if there is more; libvirt's calls
hold less. So a command's streams go to files in the guest's memory, and are read from there in pieces.
"""

from __future__ import annotations

import base64
import itertools
import secrets
import shlex
import threading
import time
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import ChannelError, GuestHung, SpecError
from pytest_vmsnap.guest.boot_watch import BootWatch
from pytest_vmsnap.guest.channel import BOOT_ID, PATH, Completed, Request, content_of, put_script
from pytest_vmsnap.guest.streams import Captured, source_of
from pytest_vmsnap.model import GuestNotes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from pytest_vmsnap.guest.streams import Sink, Source
    from pytest_vmsnap.guest.terminal import Terminal
    from pytest_vmsnap.host import Domain
    from pytest_vmsnap.model import Reseeder

PIECE_OUT = 2 << 20  # bytes; a daemon's answer is a string of at most 4 MiB (REMOTE_STRING_MAX), in base64
# Bytes. Measured on libvirt 9.0: a call that is larger than the socket's buffer (208 KiB) loses a part, and the
# agent waits for the rest or finds no JSON; 128 KiB of base64 and less come through.
PIECE_IN = 96 << 10
FIRST_PIECE = 64 << 10  # bytes; files of /proc refuse a large count with ENOMEM
LONGEST_SCRIPT = 32 << 10  # bytes; a longer one goes through a file (Linux: an argument has at most 128 KiB)
LARGE = 16 << 20  # bytes; a larger input goes to the guest's disk instead of its memory
LARGE_PLACE = "/var/tmp"  # noqa: S108 - in the guest, with a random name
KEPT_BYTES = 64 << 10  # bytes; the files of less output stay for a while, and are removed together
KEPT_COMMANDS = 16  # commands whose files may stay
FIRST_POLL_SECONDS = 0.005
LONGEST_POLL_SECONDS = 0.2
ANSWER_SECONDS = 30.0  # for one call of the agent, on a loaded guest too
GRACE_SECONDS = 5.0  # to kill a command that timed out

# $1: the stem of the streams' files; $2: the command; $3: its input's file, or empty; $4: a prefix that undoes
# that a shell's `&` makes the job ignore SIGINT, or empty. It prints which streams have bytes.
# The command has its own process group, so that TERM can kill all that it started. dash has job control on a
# terminal only ("can't access tty", 0.5.12): there setsid(1) makes the group.
RUNNER = f"""
export PATH={PATH}
umask 077
: >"$1.out"
: >"$1.err"
umask 022
set -m 2>/dev/null
case $- in *m*) lead= ;; *) lead=setsid ;; esac
$lead $4 sh -c "$2" <"${{3:-/dev/null}}" >"$1.out" 2>"$1.err" &
p=$!
trap 'kill -KILL "-$p" 2>/dev/null || kill -s KILL "$p"' TERM
while :; do wait "$p"; r=$?; kill -0 "$p" 2>/dev/null || break; done
[ -s "$1.out" ] && echo out
[ -s "$1.err" ] && echo err
exit "$r"
"""
PLACES = "/dev/shm /run /tmp"  # noqa: S108 - in the guest; a directory of our own is made there
DEFAULT_SIGNALS = "--default-signal=INT,QUIT"  # since coreutils 8.31; busybox lacks it
MAKE_DIRECTORY = f"""
for place in {PLACES}; do
  ours="$place/.vmsnap"
  mkdir -p -m 700 "$ours" 2>/dev/null && [ -w "$ours" ] && echo "$ours" && break
  ours=
done
[ "$ours" ] || exit 1
env {DEFAULT_SIGNALS} true 2>/dev/null && echo env
exit 0
"""


class AgentChannel:
    """The guest agent of a domain; `domain` returns the current one, since a machine may boot again."""

    name = "agent"
    needs_network = False

    def __init__(self, domain: Callable[[], Domain], *, scaled: Callable[[float], float] = float) -> None:
        self._domain = domain
        self._scaled = scaled
        self._numbers = itertools.count(1)
        self._spent: list[str] = []
        self._place = self._lead = ""
        self._lock = threading.Lock()

    def connect(self) -> None:
        """Do nothing: libvirt holds the agent's port."""

    def open(self, *, timeout: float) -> None:
        self._domain().wait_for_agent(timeout=timeout, meanwhile=BootWatch(self._domain).look)
        with self._lock:
            self._place, self._spent = "", []

    def notes(self, reseeder: Reseeder, *, timeout: float) -> GuestNotes:  # noqa: ARG002 - the protocol
        return GuestNotes(reseeder=reseeder)

    def known_notes(self, reseeder: Reseeder) -> GuestNotes:
        return GuestNotes(reseeder=reseeder)

    def idle(self, *, timeout: float) -> AbstractContextManager[None]:  # noqa: ARG002 - the protocol
        return nullcontext()  # a clone never asks the agent for a command that was running

    def ping(self) -> None:
        pass

    def check(self, *, timeout: float) -> None:
        self._call("guest-ping", timeout=timeout)

    def boot_id(self, *, timeout: float) -> str:
        self.open(timeout=timeout)
        return content_of(self, BOOT_ID, timeout=timeout).decode()

    def interact(self, terminal: Terminal) -> None:  # noqa: ARG002 - the protocol
        raise SpecError(
            "the guest agent cannot run an interactive shell",
            hint="set vmsnap_channel to shell (the default) or ssh",
        )

    def close(self) -> None:
        """Do nothing: the agent keeps nothing open between calls."""

    def run(self, request: Request, *, timeout: float) -> Completed:
        began = time.monotonic()
        # never use a name twice: what a command left running may still write to its files
        place, lead = self._directory()
        stem = f"{place}/{next(self._numbers)}"
        out, err = request.sinks()
        streams_on = not (isinstance(out, Captured) and isinstance(err, Captured))
        if streams_on:  # the output may not fit in the guest's memory
            stem = f"{LARGE_PLACE}/.vmsnap-{secrets.token_hex(8)}"
        seconds = max(timeout, self._scaled(ANSWER_SECONDS))
        input_file = ""
        if request.source:
            input_file = (
                f"{stem}.in"
                if request.source.size <= LARGE
                else f"{LARGE_PLACE}/.vmsnap-{secrets.token_hex(8)}"
            )
            self._write(input_file, request.source, timeout=seconds)
        script = request.script()
        if len(script) > LONGEST_SCRIPT:
            self._write(f"{stem}.sh", source_of(script.encode()), timeout=seconds)
            script = f". {stem}.sh"
        started = time.monotonic()
        pid = self._start(RUNNER, stem, script, input_file, lead)
        ended = self._wait(pid, (began if not request.transfer else started) + timeout)
        if timed_out := ended is None:
            self._start(f"kill -TERM {pid}")
            ended = self._wait(pid, time.monotonic() + self._scaled(GRACE_SECONDS))
        filled = _stream(ended, "out-data").decode().split() if ended else ["out", "err"]
        try:
            for name, sink in (("out", out), ("err", err)):
                if name in filled:
                    self.get(f"{stem}.{name}", sink, timeout=seconds)
        finally:
            kept = sum(sink.size for sink in (out, err) if isinstance(sink, Captured))
            self._remove(stem, size=KEPT_BYTES if streams_on or input_file else kept, further=input_file)
        return Completed(
            status=_status(ended),
            stdout=out.content() if isinstance(out, Captured) else b"",
            stderr=err.content() if isinstance(err, Captured) else b"",
            timed_out=timed_out,
            cut_off=out.is_closed or err.is_closed,
            began=began,
        )

    def _remove(self, stem: str, *, size: int, further: str = "") -> None:
        """Remove a command's files, small ones several at a time, since each process is costly in the guest.

        `further` is one more file.
        """
        with self._lock:
            self._spent.append(stem)
            if size < KEPT_BYTES and len(self._spent) < KEPT_COMMANDS:
                return
            spent, self._spent = self._spent, []
        removal = self._start(f"rm -f {further} " + " ".join(f"{name}.*" for name in spent))
        if size >= KEPT_BYTES:  # the next command may need the room
            self._wait(removal, time.monotonic() + self._scaled(ANSWER_SECONDS))

    def _directory(self) -> tuple[str, str]:
        """Return a directory of ours in the guest, and the prefix for each command.

        The directory is in the guest's memory if possible, since a disk may be full.
        """
        with self._lock:
            if not self._place:
                ended = self._wait(self._start(MAKE_DIRECTORY), time.monotonic() + self._scaled(ANSWER_SECONDS))
                if ended is None or ended["exitcode"]:
                    raise ChannelError(f"the guest has no writable directory for output: tried {PLACES}")
                self._place, *env = _stream(ended, "out-data").decode().split()
                self._lead = f"env {DEFAULT_SIGNALS}" if env else ""
            return self._place, self._lead

    def _start(self, script: str, *arguments: str) -> int:
        answer = self._call(
            "guest-exec", path="/bin/sh", arg=["-c", script, "sh", *arguments], capture_output=True
        )
        return int(answer["pid"])

    def _wait(self, pid: int, deadline: float) -> dict[str, Any] | None:
        """Return the agent's report on the ended command, None at the `deadline` (monotonic clock)."""
        pause = FIRST_POLL_SECONDS
        while True:
            answer: dict[str, Any] = self._call("guest-exec-status", pid=pid)
            if answer["exited"]:
                return answer
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            time.sleep(min(pause, left))  # the agent sends no event when a command ends
            pause = min(pause * 1.5, LONGEST_POLL_SECONDS)

    def set_clock(self, *, timeout: float) -> None:
        """Set it through the agent itself: a process would set it late by the time that it takes to start.

        The agent then runs hwclock(8) to set the hardware clock too, which minimal guests lack; the system
        clock is set by then.
        """
        try:
            self._call("guest-set-time", time=time.time_ns(), timeout=timeout)
        except ChannelError as error:
            if "hwclock" not in error.message:
                raise

    def put(self, path: str, data: bytes, *, timeout: float) -> None:
        __tracebackhide__ = True
        source = Request(
            text=put_script(shlex.quote(path), "cat", secrets.token_hex(4)), input=data, transfer=True
        )
        done = self.run(source, timeout=timeout)
        done.expect_done(f"writing {path}", self._domain())

    def _write(self, path: str, source: Source, *, timeout: float) -> None:
        """Write a file of ours; `timeout` is in seconds since bytes last moved."""
        with self._file(path, "w") as handle:
            for whole in source.open():
                view = memoryview(whole)
                while view:
                    deadline = time.monotonic() + timeout
                    piece = base64.b64encode(view[:PIECE_IN]).decode()
                    view = view[self._call("guest-file-write", handle=handle, buf_b64=piece)["count"] :]
                    self._expect_time(deadline, f"writing {path}")

    def get(self, path: str, sink: Sink, *, timeout: float) -> None:
        __tracebackhide__ = True
        count = FIRST_PIECE
        with self._file(path, "r") as handle:
            while not sink.is_closed:
                deadline = time.monotonic() + timeout
                answer = self._call("guest-file-read", handle=handle, count=count)
                sink.write(base64.b64decode(answer["buf-b64"]))
                if answer["eof"]:
                    return
                self._expect_time(deadline, f"reading {path}")
                count = PIECE_OUT

    @contextmanager
    def _file(self, path: str, mode: str) -> Iterator[int]:
        """Open a file, and yield the agent's handle of it."""
        handle = self._call("guest-file-open", path=path, mode=mode)
        try:
            yield handle
        except ChannelError:
            with suppress(ChannelError):  # the first error is the one that counts
                self._call("guest-file-close", handle=handle)
            raise
        self._call("guest-file-close", handle=handle)

    def _expect_time(self, deadline: float, what: str) -> None:
        if time.monotonic() > deadline:
            raise GuestHung(f"{what} in the guest took too long", console=self._domain().console_text())

    def _call(self, command: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        try:
            return self._domain().agent(command, timeout=timeout or self._scaled(ANSWER_SECONDS), **arguments)
        except ChannelError as error:
            if "has been disabled" in error.message or "not found" in error.message:
                raise ChannelError(
                    f"the guest agent does not allow {command}",
                    hint="some distributions disable it: enable it in /etc/sysconfig/qemu-ga "
                    "(or /etc/qemu/qemu-ga.conf) of the image",
                ) from error
            raise


def _stream(ended: dict[str, Any], name: str) -> bytes:
    return base64.b64decode(ended.get(name, ""))


def _status(ended: dict[str, Any] | None) -> int:
    """Return the status as a shell does: 128 plus the signal's number if a signal killed it."""
    if ended is None:
        return 128 + 9
    return int(ended["exitcode"]) if "exitcode" in ended else 128 + int(ended.get("signal", 9))
