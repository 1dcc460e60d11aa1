"""The channel protocol: how commands and data reach the guest."""

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

# What a login gives; the guest agent and init start with less.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root"}


# script(1) of util-linux or busybox runs a command in its own terminal. The one of util-linux returns the
# command's status only with `-e`.
TERMINAL = """\
command -v script >/dev/null || { echo "a terminal needs script(1), of util-linux or busybox" >&2; exit 126; }
case $(script --version 2>/dev/null) in *util-linux*) how=-qefc ;; *) how=-qfc ;; esac
exec script $how @command@ /dev/null"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A command for the guest's ``sh``: its `text`, its `input`, and where and as which user it runs.

    `cwd` None is ``/``, `user` None is root; `env` is added to a login's environment. With `tty` it runs in a
    terminal. Its output goes to `stdout` and `stderr`; None keeps up to `limit` bytes of each in memory. The
    timeout of a `transfer` restarts whenever bytes move.
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
        """The input as a source, None if it is empty."""
        found = source_of(self.input) if isinstance(self.input, bytes) else self.input
        return found if found.size else None

    def sinks(self) -> tuple[Sink, Sink]:
        """Return the sinks for stdout and stderr of one run."""
        return self.stdout or Captured(self.limit), self.stderr or Captured(self.limit)

    def script(self, *, login: bool = True) -> str:
        """Return it as one POSIX ``sh`` script; without `login`, the environment must be a login's already."""
        lines = [f"cd {shlex.quote(self.cwd or '/')} || exit 126"] if login or self.cwd else []
        lines += [f"export {name}={shlex.quote(value)}" for name, value in self.env.items()]
        lines.append(self.text)
        script = "\n".join(lines)
        if self.user is not None:
            # `su` sets HOME, USER and LOGNAME; without a login shell it keeps the rest
            script = f"export PATH={PATH}; exec su -s /bin/sh -c {shlex.quote(script)} {shlex.quote(self.user)}"
        if self.tty:
            script = TERMINAL.replace("@command@", shlex.quote(script))
        if self.user is not None or not login:
            return script
        variables = [f"export {name}={shlex.quote(value)}" for name, value in DEFAULT_ENVIRONMENT.items()]
        return "\n".join([*variables, script])


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The result of a request: the shell's status, and both streams as far as they are kept in memory.

    `timed_out` if it was killed because it ran too long, `cut_off` if because a sink took no more. `began` is
    when its turn came (monotonic clock).
    """

    status: int
    stdout: bytes = b""
    stderr: bytes = b""
    timed_out: bool = False
    cut_off: bool = False
    began: float = 0.0

    def expect_done(self, what: str, domain: Domain) -> None:
        """Raise `GuestHung` if it timed out, `ChannelError` if it failed (with its stderr) or was cut off."""
        __tracebackhide__ = True
        if self.timed_out:
            raise GuestHung(f"{what} in the guest took too long", console=domain.console_text())
        if self.cut_off:
            raise ChannelError(f"{what} in the guest failed: the output is too long to keep in memory")
        if self.status:
            words = self.stderr.decode(errors="replace").strip() or f"exit status {self.status}"
            raise ChannelError(f"{what} in the guest failed: {words}")


def put_script(target: str, take: str, mark: str) -> str:
    """Return a line for ``sh`` that writes the output of the command `take` to the file `target` (both quoted).

    If the file exists, the data goes to a new file next to it first, and into it when all has arrived: its
    owner, mode and links stay. What cannot be staged like this (/proc, /sys, a device) is written directly.
    `mark` makes the name of the new file unique.
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
    """Return the content of a file in the guest.

    Raises `ChannelError` with `hint` if it is longer than `limit` bytes.
    """
    __tracebackhide__ = True
    sink = Captured(limit)
    channel.get(path, sink, timeout=timeout)
    if sink.is_closed:
        raise ChannelError(f"{path} in the guest is larger than the limit of {limit >> 20} MiB", hint=hint)
    return sink.content()


def expect_alive(domain: Domain) -> None:
    """Raise the reason if the guest will never answer.

    Raises `GuestGone` if QEMU has ended, `GuestHung` if it can be seen from outside that the guest hangs,
    `BootError` if its boot has come to a dead end.
    """
    if domain.condition() == "stopped":
        raise GuestGone(f"{domain.name} has ended", console=domain.console_text())
    if trouble := domain.stall_reason():
        raise GuestHung(trouble, console=domain.console_text())
    for look in tuple(domain.watches):
        look()


def set_clock_by_date(run: Callable[[str, float], Completed], domain: Domain, timeout: float) -> None:
    """Set the guest's clock with date(1), to the millisecond, or to the second if it is busybox's.

    Raises `GuestHung` if that takes more than `timeout` seconds, `ChannelError` if it fails.
    """
    deadline = time.monotonic() + timeout
    done = run(f"date -s @{time.time():.3f} >/dev/null", timeout)
    if done.status and not done.timed_out:
        done = run(f"date -s @{time.time():.0f} >/dev/null", max(1.0, deadline - time.monotonic()))
    done.expect_done("setting the clock", domain)


class Target(Protocol):
    """What a channel needs of a machine: its `domain`, which a new boot replaces, and its network."""

    domain: Domain

    @property
    def address(self) -> str:
        """The loopback address of the host on which its ports are forwarded."""

    @property
    def netdev(self) -> str:
        """QEMU's name of its network backend, empty if it has none."""


class Channel(Protocol):
    """Carries commands and data to the guest and back. All timeouts are in seconds.

    Each call raises `GuestGone` if QEMU has ended, `GuestHung` if the guest does not answer in time, and
    `ChannelError` with the reason if anything else fails.
    """

    name: str
    needs_network: bool

    def connect(self) -> None:
        """Connect the host's ends, before the machine runs; does not wait for the guest."""

    def open(self, *, timeout: float) -> None:
        """Make the channel ready: return when the guest answers. Call it again after a reboot."""

    def notes(self, reseeder: Reseeder, *, timeout: float) -> GuestNotes:
        """Return what clones of the guest as it is now need not be asked for again; no command may run."""

    def known_notes(self, reseeder: Reseeder) -> GuestNotes:
        """Return what is known of `notes` without asking the guest; commands may run."""

    def idle(self, *, timeout: float) -> AbstractContextManager[None]:
        """Wait for commands to end, and let none run in the block; `ChannelError` if one does not end."""

    def ping(self) -> None:
        """Send the question that `check` waits for ahead of time, if the channel can."""

    def check(self, *, timeout: float) -> None:
        """Prove with one exchange, as cheap as possible, that the guest answers; call `open` before."""

    def boot_id(self, *, timeout: float) -> str:
        """Open the channel, and return the id of the boot that answers: a new text for each boot."""

    def run(self, request: Request, *, timeout: float) -> Completed:
        """Run a command to its end; kill it and all that it started if it runs longer than `timeout`.

        It is also killed if a sink takes no more of its output. Its timeout starts when its turn comes. If the
        source of its input raises, the command is killed and the error propagates.
        """

    def set_clock(self, *, timeout: float) -> None:
        """Set the guest's clock to the host's."""

    def put(self, path: str, data: bytes, *, timeout: float) -> None:
        """Write `data` to a file in the guest. The old content stays until all of it has arrived."""

    def get(self, path: str, sink: Sink, *, timeout: float) -> None:
        """Read a file in the guest into `sink`; end early, without an error, once the sink takes no more.

        `timeout` restarts whenever bytes move.
        """

    def interact(self, terminal: Terminal) -> None:
        """Run a login shell at a person's terminal until it ends; `SpecError` if the channel cannot."""

    def close(self) -> None:
        """Close the channel; the guest may be gone already."""
