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
from pytest_vmsnap.guest import Captured, FileSink, Request
from pytest_vmsnap.host import replacing
from pytest_vmsnap.machine.history import CommandRecord, History
from pytest_vmsnap.model import Result
from pytest_vmsnap.progress import silent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from pytest_vmsnap.guest import Channel, Completed, Sink
    from pytest_vmsnap.host import Forward
    from pytest_vmsnap.machine.backend import Backend
    from pytest_vmsnap.machine.deadlines import Deadlines
    from pytest_vmsnap.pool import Savepoint
    from pytest_vmsnap.progress import Progress

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # POSIX, "Environment Variable Definition": what sh can set
SIGNAL_BASE = 128  # POSIX, "Exit Status for Commands": a command ended by a signal has a status above 128


class Commands:
    """A machine's commands; the base of its other features."""

    def __init__(
        self,
        backend: Backend,
        channel: Channel,
        deadlines: Deadlines,
        history: History | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._backend = backend
        self._channel = channel
        self._deadlines = deadlines
        self._progress = progress or silent()
        self._history = history or History()
        if self._history.backend is not backend:
            self._history.follow(backend, channel)
        self._released = ""
        self._address = backend.address
        self._forwards: list[Forward] = []
        self._untouched: Savepoint | None = None  # the savepoint, if nothing has used the machine since
        self.generation = 0  # how many times the machine was reverted

    def seconds(self, timeout: float | None) -> float:
        """Return `timeout` (None: the option's) in seconds, times the factor on deadlines."""
        return self._deadlines.seconds(timeout)

    def _expect_usable(self) -> None:
        __tracebackhide__ = True
        if self._released:
            raise MachineReleased(
                f"this machine belonged to {self._released}, which has ended",
                hint="request a machine with a fixture of this test, or share one with vm_module or vm_session",
            )
        self._untouched = None

    @property
    def name(self) -> str:
        """The name of the machine's libvirt domain."""
        return self._backend.domain.name

    @property
    def is_running(self) -> bool:
        """Whether the machine's processors are running: it is neither paused nor off."""
        return self._backend.domain.condition() == "running"

    @property
    def console_log(self) -> str:
        """What the guest printed on its serial console since the test began, or since the last revert.

        If it is larger than `vmsnap_output_limit`, only the end.
        """
        return self._history.console(self._deadlines.output)

    def run(
        self,
        cmd: str | Sequence[str],
        *,
        input: bytes | str | None = None,  # noqa: A002 - as in subprocess.run
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

        The guest's ``sh`` runs a string as it is, and a sequence after quoting it. The command reads `input`
        (text is sent as UTF-8), and runs in `cwd` (default ``/``), as `user` (default root), with `env` added
        to a login environment. `timeout` is in seconds; None means the option's. It starts when the command
        gets its turn: the channel ``shell`` runs four commands at once. With `tty`, the command gets a
        terminal, which needs script(1) in the guest; all output is then in stdout, and lines end with a
        carriage return and a newline.

        `stdout` and `stderr` are files on the host that receive the output as it arrives. A file appears, or
        replaces an older one, when the command has ended by itself. If it is killed, the file stays as it was,
        and the error's `result` has the end of the output. Without `stdout` and `stderr`, the plugin keeps each
        stream in memory, up to `vmsnap_output_limit`.

        Raises `CommandTimeout` with the output so far if the command times out, after killing it with
        everything it started; `OutputTooLong` if it prints more than the limit, which also ends it;
        `CommandFailed` if `check` is true and it fails; `ValueError` for a NUL or an invalid variable name;
        `OSError` if a file on the host cannot be written; `GuestGone` if the machine is off, and `GuestHung` if
        the guest does not answer.
        """
        __tracebackhide__ = True
        self._expect_usable()
        text = cmd if isinstance(cmd, str) else shlex.join(cmd)
        data = input.encode() if isinstance(input, str) else input or b""
        _expect_passable(text, cwd=cwd, user=user, env=env or {})
        limit = self._deadlines.output
        with ExitStack() as stack:
            sinks: list[Sink] = [
                Captured(limit) if path is None else FileSink(stack.enter_context(replacing(path)))
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
            result = self._run_request(request, timeout)
        if check and result.returncode:
            raise CommandFailed(f"{_short(text)} failed with status {result.returncode}", result=result)
        return result

    def _run_request(self, request: Request, timeout: float | None, *, shown: str = "") -> Result:
        """Run `request` through the channel; messages show `shown` instead of its text. Raises as `run`."""
        __tracebackhide__ = True
        text = shown or request.text
        seconds = self._deadlines.seconds(timeout)
        began = time.monotonic()
        try:
            done = self._channel.run(request, timeout=seconds)
        except (GuestGone, GuestHung) as error:
            self._note(began, text, error.message)
            raise self._explained(f"during {_short(text)}", error) from None  # the new error says it all
        except BaseException:  # e.g. KeyboardInterrupt
            self._note(began, text, "interrupted")
            raise
        began = done.began or began
        stdout, stderr = done.stdout, done.stderr
        if done.timed_out:  # the files that they go to do not appear
            stdout, stderr = _seen(request.stdout, stdout), _seen(request.stderr, stderr)
        outcome = f"killed after {seconds:g} s" if done.timed_out else f"status {done.status}"
        record = self._note(began, text, "ended: too much output" if done.cut_off else outcome, done)
        result = Result(
            command=text,
            returncode=done.status,
            signal=done.status - SIGNAL_BASE if done.status > SIGNAL_BASE else None,
            stdout=stdout,
            stderr=stderr,
            duration=record.seconds,
        )
        if done.cut_off:
            raise _too_long(request, result)
        if done.timed_out:
            over = (
                f"no bytes moved for {seconds:g} s"
                if request.transfer
                else f"it took longer than {seconds:g} s"
            )
            raise CommandTimeout(f"{_short(text)} was killed: {over}", result=result)
        return result

    def _note(self, began: float, command: str, outcome: str, done: Completed | None = None) -> CommandRecord:
        seconds = time.monotonic() - began
        record = CommandRecord(
            began=time.time() - seconds,
            seconds=seconds,
            command=command,
            outcome=outcome,
            stdout=done.stdout if done is not None else b"",
            stderr=done.stderr if done is not None else b"",
        )
        self._history.note(record)
        return record

    def succeed(self, *cmds: str | Sequence[str], timeout: float | None = None) -> str:
        """Run commands that must succeed, one after another; return the stdout of all of them.

        `timeout` is in seconds and applies to each command; None means the option's. Raises `CommandFailed`,
        with both streams, for the first command that fails; otherwise as `run` does.
        """
        __tracebackhide__ = True
        texts = []
        for cmd in cmds:  # a comprehension would add a frame to the user's traceback
            texts.append(self.run(cmd, timeout=timeout, check=True).text)  # noqa: PERF401
        return "".join(texts)

    def fail(self, *cmds: str | Sequence[str], timeout: float | None = None) -> str:
        """Run commands that must fail, one after another; return the stdout of all of them.

        `timeout` is in seconds and applies to each command; None means the option's. Raises `CommandSucceeded`,
        with both streams, for the first command that succeeds; otherwise as `run` does.
        """
        __tracebackhide__ = True
        texts = []
        for cmd in cmds:
            result = self.run(cmd, timeout=timeout)
            if not result.returncode:
                raise CommandSucceeded(
                    f"{_short(result.command)} succeeded, but should have failed", result=result
                )
            texts.append(result.text)
        return "".join(texts)

    def _explained(self, when: str, error: ChannelError) -> GuestGone | GuestHung:
        """Return the error to raise for `error`, with what QEMU does, and what it and the guest printed."""
        domain = self._backend.domain
        if isinstance(error, GuestGone):
            domain.events.wait_for_end()
        name, condition = self._history.title, domain.condition()
        console = self._history.console(SHOWN_BYTES)
        if condition == "stopped":
            return GuestGone(
                f"the machine {name} is off ({when})",
                hint="vm.start() boots it again",
                console=console,
                log=self._backend.log(),
            )
        if condition == "paused":
            return GuestHung(
                f"the machine {name} is paused ({when})",
                hint="if the test paused it, call vm.resume(); otherwise QEMU paused it because it could "
                "not write a disk: is the host's disk full?",
                console=console,
            )
        if trouble := self._backend.domain.stall_reason():
            return GuestHung(f"the machine {name} does not answer ({when}): {trouble}", console=console)
        return GuestHung(
            f"the machine {name} did not answer {when}",
            hint="QEMU is running, so the guest is overloaded or its kernel hangs; the console may show which",
            console=console,
        )


def _seen(sink: Sink | None, content: bytes) -> bytes:
    """Return what is known of a stream: its `content`, or the last bytes of what went to a file."""
    return sink.end.content() if isinstance(sink, FileSink) else content


def _too_long(request: Request, result: Result) -> Exception:
    """Return why a command was ended early: it printed too much, or its output file cannot be written."""
    for name, sink in (("stdout", request.stdout), ("stderr", request.stderr)):
        if isinstance(sink, FileSink) and sink.failure:
            return sink.failure
        if isinstance(sink, Captured) and sink.is_closed:
            return OutputTooLong(
                f"{_short(request.text)} was ended: it printed more than the {sink.limit >> 20} MiB of {name} "
                f"that are kept in memory ({sink.size} bytes had arrived)",
                hint=f"to get all of it, write it to a file on the host: vm.run(..., {name}=path); "
                "to keep more in memory, raise vmsnap_output_limit",
                result=result,
            )
    raise AssertionError("a command was cut off, and no sink is closed")


def _expect_passable(text: str, *, cwd: str | None, user: str | None, env: Mapping[str, str]) -> None:
    """Raise `ValueError` for what neither a shell nor execve(2) can pass on: it would be lost silently."""
    for name in env:
        if not VARIABLE.fullmatch(name):
            raise ValueError(
                f"env: {name!r} is not a valid variable name: use letters, digits and _, and no digit first"
            )
    values = {"the command": text, "cwd": cwd or "", "user": user or ""}
    for what, value in {**values, **{f"env[{name!r}]": value for name, value in env.items()}}.items():
        if "\0" in value:
            raise ValueError(
                f"{what} contains a NUL at position {value.index(chr(0))}, which no command can: "
                f"{_short(value)}; pass bytes with input=, or write them to a file with vm.write_bytes"
            )


def _short(text: str, length: int = 200) -> str:
    """Return a command for a message: quoted, and cut if it is long."""
    return repr(text) if len(text) <= length else f"{text[:length]!r}..."
