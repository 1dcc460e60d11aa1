"""Commands in the guest."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import (
    ChannelError,
    CommandFailed,
    CommandSucceeded,
    CommandTimeout,
    GuestGone,
    GuestHung,
    MachineReleased,
)
from pytest_vmsnap.guest import Request
from pytest_vmsnap.machine.trail import Deed, Trail
from pytest_vmsnap.model import Result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_vmsnap.guest import Channel, Completed
    from pytest_vmsnap.host import Forward
    from pytest_vmsnap.machine.body import Body, Deadlines
    from pytest_vmsnap.pool import Moment

ENDING_SECONDS = 5.0  # for libvirt to see that a QEMU has ended
SIGNAL_BASE = 128  # POSIX, "Exit Status for Commands": a death by signal is reported as more than 128


class Commands:
    """A machine's commands, and what everything else on it stands on."""

    def __init__(self, body: Body, channel: Channel, deadlines: Deadlines, trail: Trail | None = None) -> None:
        self._body = body
        self._channel = channel
        self._deadlines = deadlines
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
        return self._trail.console

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
    ) -> Result:
        """Run a command in the guest and return its `Result`.

        A string runs in the guest's ``sh``, a sequence is quoted for it. `input` is what it reads (text as
        UTF-8); it runs in `cwd` (default ``/``), as `user` (default root), with `env` added to what a login
        would give. `timeout` in seconds, None for the option's.

        Raises `CommandTimeout`, with what it had printed, where it runs over its time: it is killed then, with
        all that it started; `CommandFailed` where `check` is true and it fails; `GuestGone` or `GuestHung`
        where the guest does not answer.
        """
        __tracebackhide__ = True
        self._expect_usable()
        text = cmd if isinstance(cmd, str) else shlex.join(cmd)
        data = input.encode() if isinstance(input, str) else input or b""
        request = Request(text=text, input=data, cwd=cwd, env=env or {}, user=user)
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
        deed = self._note(
            began, text, f"killed after {seconds:g} s" if done.timed_out else f"status {done.status}", done
        )
        result = Result(
            command=text,
            returncode=done.status,
            signal=done.status - SIGNAL_BASE if done.status > SIGNAL_BASE else None,
            stdout=done.stdout,
            stderr=done.stderr,
            duration=deed.seconds,
        )
        if done.timed_out:
            raise CommandTimeout(f"{_short(text)} was killed: it ran over its {seconds:g} s", result=result)
        if check and result.returncode:
            raise CommandFailed(f"{_short(text)} failed with status {result.returncode}", result=result)
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
        console = self.console_log + (
            "\n" + log if (log := self._body.log()) and condition == "stopped" else ""
        )
        if condition == "stopped":
            return GuestGone(
                f"the machine {name} is off {when}", hint="vm.start() boots it again", console=console
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


def _short(text: str, length: int = 200) -> str:
    """A command for a message: quoted, and cut where it is long."""
    return repr(text) if len(text) <= length else f"{text[:length]!r}..."
