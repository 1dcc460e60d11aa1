"""Commands in the guest."""

from __future__ import annotations

import re
import shlex
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import (
    SHOWN_BYTES,
    ChannelError,
    CommandFailed,
    CommandSucceeded,
    CommandTimeout,
    GuestGone,
    GuestHung,
    MachineReleased,
    OutputTooLong,
)
from pytest_vmsnap.guest import Captured, Request, Written
from pytest_vmsnap.host import replacing
from pytest_vmsnap.machine.trail import Deed, Trail
from pytest_vmsnap.model import Result
from pytest_vmsnap.progress import silent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from pytest_vmsnap.guest import Channel, Completed, Sink
    from pytest_vmsnap.host import Forward
    from pytest_vmsnap.machine.body import Body, Deadlines
    from pytest_vmsnap.pool import Moment
    from pytest_vmsnap.progress import Progress

ENDING_SECONDS = 5.0  # for libvirt to see that a QEMU has ended
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # POSIX, "Environment Variable Definition", and what sh sets
SIGNAL_BASE = 128  # POSIX, "Exit Status for Commands": a death by signal is reported as more than 128


class Commands:
    """A machine's commands, and what everything else on it stands on."""

    def __init__(
        self,
        body: Body,
        channel: Channel,
        deadlines: Deadlines,
        trail: Trail | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._body = body
        self._channel = channel
        self._deadlines = deadlines
        self._progress = progress or silent()
        self._trail = trail or Trail()
        if self._trail.body is not body:
            self._trail.follow(body, channel)
        self._released = ""
        self._address = body.address
        self._forwards: list[Forward] = []
        self._untouched: Moment | None = None  # the moment that it is still as it was at
        self.era = 0  # how often it has been reverted

    def seconds(self, timeout: float | None) -> float:
        """The time-out in seconds that holds here for one that a test gave, or None for the option's."""
        return self._deadlines.seconds(timeout)

    def _expect_usable(self) -> None:
        __tracebackhide__ = True
        if self._released:
            raise MachineReleased(
                f"this machine belonged to {self._released}, which has ended",
                hint="take a machine by a fixture of your own test, or share one with vm_module or vm_session",
            )
        self._untouched = None

    @property
    def name(self) -> str:
        """The name of its libvirt domain."""
        return self._body.domain.name

    @property
    def is_running(self) -> bool:
        """Whether its processors run: it is neither paused nor off."""
        return self._body.domain.condition() == "running"

    @property
    def console_log(self) -> str:
        """What the guest has printed on its serial console since the test began."""
        return self._trail.console(self._deadlines.output)

    def run(
        self,
        cmd: str | Sequence[str],
        *,
        input: bytes | str | None = None,  # noqa: A002 - as subprocess.run has it
        timeout: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        check: bool = False,
        tty: bool = False,
        stdout: str | PathLike[str] | None = None,
        stderr: str | PathLike[str] | None = None,
    ) -> Result:
        """Run a command in the guest and return its `Result`.

        A string runs in the guest's ``sh``, a sequence is quoted for it. `input` is what it reads (text as
        UTF-8); it runs in `cwd` (default ``/``), as `user` (default root), with `env` added to what a login
        would give. `timeout` in seconds, None for the option's; it begins when the command has its turn, for
        four run at once. With `tty` the command has a terminal, which needs script(1) in the guest: all that it
        prints is in stdout then, and lines end with a carriage return and a newline.

        `stdout` and `stderr` are files on the host that the output goes to as it comes; they appear, or replace
        what was there, when the command has ended. Without them, each stream is kept in memory, up to
        `vmsnap_output_limit`.

        Raises `CommandTimeout`, with what it had printed, where it runs over its time: it is killed then, with
        all that it started; `OutputTooLong` where it prints more than is kept, which ends it too;
        `CommandFailed` where `check` is true and it fails; `ValueError` for what no command can hold;
        `OSError` where a file on the host cannot be written; `GuestGone` or `GuestHung` where the guest does
        not answer.
        """
        __tracebackhide__ = True
        self._expect_usable()
        text = cmd if isinstance(cmd, str) else shlex.join(cmd)
        data = input.encode() if isinstance(input, str) else input or b""
        _expect_holdable(text, cwd=cwd, user=user, env=env or {})
        limit = self._deadlines.output
        with ExitStack() as stack:
            sinks: list[Sink] = [
                Captured(limit) if path is None else Written(stack.enter_context(replacing(path)))
                for path in (stdout, stderr)
            ]
            request = Request(
                text=text,
                input=data,
                cwd=cwd,
                env=env or {},
                user=user,
                tty=tty,
                stdout=sinks[0],
                stderr=sinks[1],
            )
            result = self._performed(request, timeout)
        if check and result.returncode:
            raise CommandFailed(f"{_short(text)} failed with status {result.returncode}", result=result)
        return result

    def _performed(self, request: Request, timeout: float | None, *, shown: str = "") -> Result:
        """Have the channel run `request`, which `shown` stands for in messages; raises as `run` does."""
        __tracebackhide__ = True
        text = shown or request.text
        seconds = self._deadlines.seconds(timeout)
        began = time.monotonic()
        try:
            done = self._channel.run(request, timeout=seconds)
        except (GuestGone, GuestHung) as error:
            self._note(began, text, error.message)
            raise self._explained(f"while it ran {_short(text)}", error) from None  # its own says it all
        except BaseException:  # a test that is interrupted
            self._note(began, text, "given up")
            raise
        began = done.began or began
        outcome = f"killed after {seconds:g} s" if done.timed_out else f"status {done.status}"
        deed = self._note(began, text, "ended: too much output" if done.cut_off else outcome, done)
        result = Result(
            command=text,
            returncode=done.status,
            signal=done.status - SIGNAL_BASE if done.status > SIGNAL_BASE else None,
            stdout=done.stdout,
            stderr=done.stderr,
            duration=deed.seconds,
        )
        if done.cut_off:
            raise _too_long(request, result)
        if done.timed_out:
            over = f"no bytes moved for {seconds:g} s" if request.transfer else f"it ran over its {seconds:g} s"
            raise CommandTimeout(f"{_short(text)} was killed: {over}", result=result)
        return result

    def _note(self, began: float, command: str, outcome: str, done: Completed | None = None) -> Deed:
        seconds = time.monotonic() - began
        deed = Deed(
            began=time.time() - seconds,
            seconds=seconds,
            command=command,
            outcome=outcome,
            stdout=done.stdout if done is not None else b"",
            stderr=done.stderr if done is not None else b"",
        )
        self._trail.note(deed)
        return deed

    def succeed(self, *cmds: str | Sequence[str], timeout: float | None = None) -> str:
        """Run commands that are to succeed, one after another; returns the stdout of all, as it came.

        Raises `CommandFailed`, with both streams, at the first that fails. `timeout` in seconds, for each.
        """
        __tracebackhide__ = True
        texts = []
        for cmd in cmds:  # a comprehension would be a frame of its own in the person's traceback
            texts.append(self.run(cmd, timeout=timeout, check=True).text)  # noqa: PERF401
        return "".join(texts)

    def fail(self, *cmds: str | Sequence[str], timeout: float | None = None) -> str:
        """Run commands that are to fail, one after another; returns the stdout of all.

        Raises `CommandSucceeded`, with both streams, at the first that succeeds. `timeout` in seconds, each.
        """
        __tracebackhide__ = True
        texts = []
        for cmd in cmds:
            result = self.run(cmd, timeout=timeout)
            if not result.returncode:
                raise CommandSucceeded(f"{_short(result.command)} succeeded, and was to fail", result=result)
            texts.append(result.text)
        return "".join(texts)

    def _explained(self, when: str, error: ChannelError) -> GuestGone | GuestHung:
        """An error with what can be said of the guest: whether its QEMU runs, and what it printed."""
        domain = self._body.domain
        if isinstance(error, GuestGone):  # its ports end a moment before libvirt says so
            domain.events.stopped.wait(ENDING_SECONDS)
        name, condition = self._body.name, domain.condition()
        console = self._trail.console(SHOWN_BYTES)
        if condition == "stopped":
            return GuestGone(
                f"the machine {name} is off {when}",
                hint="vm.start() boots it again",
                console=console,
                log=self._body.log(),
            )
        if condition == "paused":
            return GuestHung(
                f"the machine {name} stands still {when}: QEMU paused it",
                hint="QEMU pauses a guest whose disk cannot be written: is the host's disk full?",
                console=console,
            )
        if trouble := self._body.domain.trouble():
            return GuestHung(f"the machine {name} does not answer {when}: {trouble}", console=console)
        return GuestHung(
            f"the machine {name} did not answer {when}",
            hint="its QEMU runs: the guest is overloaded, or its kernel hangs; the console may say",
            console=console,
        )


def _too_long(request: Request, result: Result) -> Exception:
    """Why a command was ended before its end: it printed too much, or the file it prints to is full."""
    for name, sink in (("stdout", request.stdout), ("stderr", request.stderr)):
        if isinstance(sink, Written) and sink.failure:
            return sink.failure
        if isinstance(sink, Captured) and sink.is_closed:
            return OutputTooLong(
                f"{_short(request.text)} was ended: it printed more than the {sink.limit >> 20} MiB of {name} "
                f"that are kept in memory ({sink.size} bytes had come)",
                hint=f"to have all of it, name a file on the host: vm.run(..., {name}=path); "
                "to keep more in memory, raise vmsnap_output_limit",
                result=result,
            )
    raise AssertionError("a command was cut off, and no sink is closed")


def _expect_holdable(text: str, *, cwd: str | None, user: str | None, env: Mapping[str, str]) -> None:
    """Raise `ValueError` for what neither a shell nor execve(2) can carry: it would be dropped silently."""
    for name in env:
        if not VARIABLE.fullmatch(name):
            raise ValueError(f"env: {name!r} is not the name of a variable: letters, digits and _ are allowed")
    values = {"the command": text, "cwd": cwd or "", "user": user or ""}
    for what, value in {**values, **{f"env[{name!r}]": value for name, value in env.items()}}.items():
        if "\0" in value:
            raise ValueError(
                f"{what} has a NUL at position {value.index(chr(0))}, and no command can hold one: "
                f"{_short(value)}; give bytes as input=, or write them to a file with vm.write_bytes"
            )


def _short(text: str, length: int = 200) -> str:
    """A command for a message: quoted, and cut where it is long."""
    return repr(text) if len(text) <= length else f"{text[:length]!r}..."
