"""The way by which commands and data reach the guest."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pytest_vmsnap.errors import ChannelError, GuestGone, GuestHung
from pytest_vmsnap.guest.streams import OUTPUT_LIMIT, Captured, Source, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from pytest_vmsnap.guest.streams import Sink
    from pytest_vmsnap.guest.terminal import Terminal
    from pytest_vmsnap.host import Domain
    from pytest_vmsnap.model import GuestNotes, Reseeder

BOOT_ID = "/proc/sys/kernel/random/boot_id"  # Linux, Documentation/admin-guide/sysctl/kernel.rst

# What a login would give; the guest agent and init start with less.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root"}


# script(1) of util-linux or busybox runs a command in a terminal of its own. util-linux's passes its status on
# only when it is asked to (`-e`).
TERMINAL = """\
command -v script >/dev/null || { echo "a terminal needs script(1), of util-linux or busybox" >&2; exit 126; }
case $(script --version 2>/dev/null) in *util-linux*) how=-qefc ;; *) how=-qfc ;; esac
exec script $how @command@ /dev/null"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A command for the guest's ``sh``: its `text`, what it reads (`input`), and where and as whom it runs.

    `cwd` None is ``/``, `user` None is root; `env` is added to what a login would give. With `tty` it runs in a
    terminal. Its streams go to `stdout` and `stderr`, None to keep up to `limit` bytes of each in memory. The
    time-out of a `transfer` begins anew whenever bytes move.
    """

    text: str
    input: bytes | Source = b""
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    tty: bool = False
    stdout: Sink | None = None
    stderr: Sink | None = None
    limit: int = OUTPUT_LIMIT
    transfer: bool = False

    @property
    def source(self) -> Source | None:
        """The input as a source, None without one."""
        found = source_of(self.input) if isinstance(self.input, bytes) else self.input
        return found if found.size else None

    def sinks(self) -> tuple[Sink, Sink]:
        """Where the two streams of one run of it go."""
        return self.stdout or Captured(self.limit), self.stderr or Captured(self.limit)

    def script(self, *, login: bool = True) -> str:
        """The whole as one script for POSIX ``sh``; without `login` it runs where a login's environment is."""
        lines = [f"cd {shlex.quote(self.cwd or '/')} || exit 126"] if login or self.cwd else []
        lines += [f"export {name}={shlex.quote(value)}" for name, value in self.env.items()]
        lines.append(self.text)
        script = "\n".join(lines)
        if self.user is not None:
            # `su` sets HOME, USER and LOGNAME; without a login it keeps the rest
            script = f"export PATH={PATH}; exec su -s /bin/sh -c {shlex.quote(script)} {shlex.quote(self.user)}"
        if self.tty:
            script = TERMINAL.replace("@command@", shlex.quote(script))
        if self.user is not None or not login:
            return script
        variables = [f"export {name}={shlex.quote(value)}" for name, value in DEFAULT_ENVIRONMENT.items()]
        return "\n".join([*variables, script])


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """What came of a request: the shell's status, and both streams as far as they are kept in memory.

    `timed_out` if it was killed because it ran over its time, `cut_off` if because a sink took no more.
    `began` is when it had its turn (monotonic clock).
    """

    status: int
    stdout: bytes = b""
    stderr: bytes = b""
    timed_out: bool = False
    cut_off: bool = False
    began: float = 0.0

    def expect_done(self, what: str, domain: Domain) -> None:
        """Raise `GuestHung` where it did not end in time, `ChannelError` with its words where it failed."""
        __tracebackhide__ = True
        if self.timed_out:
            raise GuestHung(f"{what} in the guest took too long", console=domain.console_text())
        if self.cut_off:
            raise ChannelError(f"{what} in the guest: it is longer than what is kept in memory")
        if self.status:
            words = self.stderr.decode(errors="replace").strip() or f"status {self.status}"
            raise ChannelError(f"{what} in the guest: {words}")


def put_script(target: str, take: str, mark: str) -> str:
    """One line for ``sh`` that writes what the command `take` gives to a file, `target` (both quoted for it).

    Where there is a file already, the data goes beside it first, and into it when all has arrived: its owner,
    mode and links stay. What cannot be staged so (/proc, /sys, a device) is written at once. `mark` makes the
    name beside it one of our own.
    """
    return (
        f"t={target}; s=$t.vmsnap-{mark}; "
        f'if [ ! -e "$t" ] && [ ! -L "$t" ]; then {take} >"$t" || {{ rm -f "$t"; false; }}; '
        'elif [ -f "$t" ] && true 2>/dev/null >"$s"; then '
        f'if {take} >"$s"; then {{ cat "$s" >"$t" && rm -f "$s"; }} || mv -f "$s" "$t"; '
        'else rm -f "$s"; false; fi; '
        f'else {take} >"$t"; fi'
    )


def content_of(
    channel: Channel, path: str, *, timeout: float, limit: int = OUTPUT_LIMIT, hint: str = ""
) -> bytes:
    """The content of a file of the guest.

    Raises `ChannelError`, with `hint`, where it is longer than `limit` bytes.
    """
    __tracebackhide__ = True
    sink = Captured(limit)
    channel.get(path, sink, timeout=timeout)
    if sink.is_closed:
        raise ChannelError(f"{path} in the guest is longer than the {limit >> 20} MiB that are kept", hint=hint)
    return sink.content()


def expect_alive(domain: Domain) -> None:
    """End the wait for an answer that will never come, with the reason.

    Raises `GuestGone` where QEMU has ended, `GuestHung` where it can be seen that the guest stands still,
    `BootError` where it boots and has come to a dead end.
    """
    if domain.condition() == "stopped":
        raise GuestGone(f"{domain.name} has ended", console=domain.console_text())
    if trouble := domain.trouble():
        raise GuestHung(trouble, console=domain.console_text())
    for look in tuple(domain.watches):
        look()


def set_clock_by_date(run: Callable[[str, float], Completed], domain: Domain, timeout: float) -> None:
    """Set the guest's clock by date(1), to the millisecond, or to the second: busybox knows no other."""
    deadline = time.monotonic() + timeout
    done = run(f"date -s @{time.time():.3f} >/dev/null", timeout)
    if done.status and not done.timed_out:
        done = run(f"date -s @{time.time():.0f} >/dev/null", max(1.0, deadline - time.monotonic()))
    done.expect_done("setting the clock", domain)


class Site(Protocol):
    """A machine as a channel needs it: its `domain`, which is another after a new boot, and its network."""

    domain: Domain

    @property
    def address(self) -> str:
        """The host's loopback address that its ports are forwarded to."""

    @property
    def netdev(self) -> str:
        """QEMU's name of its network backend, empty without one."""


class Channel(Protocol):
    """Commands and data to the guest and back. All time-outs are in seconds.

    What is on the way raises `GuestGone` where QEMU has ended, `GuestHung` where the guest does not answer
    in time, and `ChannelError` with the reason for anything else.
    """

    name: str
    needs_network: bool

    def connect(self) -> None:
        """Take the host's ends of what it needs, before the machine runs; says nothing of the guest."""

    def open(self, *, timeout: float) -> None:
        """Make it ready: returns when the guest answers. Opens again after a reboot too."""

    def notes(self, reseeder: Reseeder, *, timeout: float) -> GuestNotes:
        """What clones of the guest, as it is now, need not be asked for again; no command may run."""

    def known_notes(self, reseeder: Reseeder) -> GuestNotes:
        """What is known now of what `notes` would tell; the guest is not asked, and commands may run."""

    def still(self, *, timeout: float) -> AbstractContextManager[None]:
        """No command runs within: what is on the way is waited for; `ChannelError` where it does not end."""

    def nudge(self) -> None:
        """Ask for the answer that `check` will wait for, where that can be asked ahead."""

    def check(self, *, timeout: float) -> None:
        """Prove by one exchange, as cheap as can be, that the guest answers, after `open`."""

    def boot_id(self, *, timeout: float) -> str:
        """Which boot of the guest answers, after `open`: another text after each boot."""

    def run(self, request: Request, *, timeout: float) -> Completed:
        """Run a command to its end; one that runs over its time is killed, with all that it started.

        So is one whose output a sink takes no more of. Its time begins when it has its turn. What the source
        of its input raises comes through, and the command is killed.
        """

    def set_clock(self, *, timeout: float) -> None:
        """Set the guest's clock to the host's."""

    def put(self, path: str, data: bytes, *, timeout: float) -> None:
        """Write `data` to a file of the guest. What was there stays until all of it has arrived."""

    def get(self, path: str, sink: Sink, *, timeout: float) -> None:
        """Read a file of the guest into `sink`; ends early, without an error, once that takes no more.

        `timeout` begins anew whenever bytes move.
        """

    def interact(self, terminal: Terminal) -> None:
        """Run a login shell at the terminal of a person, until it ends; `SpecError` where that cannot be."""

    def close(self) -> None:
        """Let go of it; the guest may be gone already."""
