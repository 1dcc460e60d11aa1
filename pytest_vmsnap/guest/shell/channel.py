"""The guest shell as a channel."""

from __future__ import annotations

import logging
import secrets
import shlex
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ChannelError, GuestGone, GuestHung
from pytest_vmsnap.guest.bootstrap import connect_or_install
from pytest_vmsnap.guest.channel import Completed, put_script, set_clock_by_date
from pytest_vmsnap.guest.shell.drain import IDLE
from pytest_vmsnap.guest.shell.program import program_of, quoted
from pytest_vmsnap.guest.shell.scripts import COMMAND_SLOTS, install_script
from pytest_vmsnap.guest.shell.slots import KILL_SECONDS, Slots, new_mark
from pytest_vmsnap.guest.shell.wire import TerminalSink
from pytest_vmsnap.guest.streams import Captured, source_of
from pytest_vmsnap.guest.terminal import Escaped
from pytest_vmsnap.model import GuestNotes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_vmsnap.guest.bootstrap import BootstrapMethod
    from pytest_vmsnap.guest.channel import Request
    from pytest_vmsnap.guest.shell.slots import Slot
    from pytest_vmsnap.guest.streams import Sink, Source
    from pytest_vmsnap.guest.terminal import Terminal
    from pytest_vmsnap.host import Domain
    from pytest_vmsnap.model import Reseeder

log = logging.getLogger("pytest_vmsnap.shell")

# script(1) of util-linux or busybox provides a terminal; without it the shell runs without one
LOGIN_SHELL = """
export TERM=@kind@
shell=$(command -v bash || echo /bin/sh)
cd
if command -v script >/dev/null; then exec script -qfc "@size@; exec $shell -l" /dev/null; fi
exec "$shell" -i 2>&1
"""
PING_SECONDS = 1.0  # for which an answer to an earlier ping counts as proof
FIRST_SECONDS = 10.0  # for a clone's first answer; after that it is greeted like any other machine
SIGKILL_STATUS = 128 + 9


class ShellChannel:
    """The guest shell of a domain; `domain` returns the current one.

    `at_boot` says that the guest starts the shell by itself; if it does not, one of `methods` installs it.
    `known` are the notes on the first domain's guest from when it was saved. `scaled` stretches a deadline's
    seconds for a slow host.
    """

    name = "shell"
    needs_network = False

    def __init__(
        self,
        domain: Callable[[], Domain],
        *,
        methods: Sequence[BootstrapMethod] = (),
        at_boot: bool = False,
        known: GuestNotes | None = None,
        scaled: Callable[[float], float] = float,
    ) -> None:
        self._domain = domain
        self._scaled = scaled
        self._methods = methods
        self._at_boot = at_boot
        self._known = known
        self._pinged: Slot | None = None
        self._pinged_at = 0.0  # monotonic clock
        self._connected: Domain | None = None
        self._slots = Slots(domain, scaled=scaled)

    def connect(self) -> None:
        """Connect to the ports of the current domain, before it runs, so that its shell never waits.

        A guest that reads a port without a reader on the host gets the end of the file, and has to poll.
        Connect once per domain: each connect and disconnect is a control message, and QEMU drops those that do
        not fit in its queue of 32 (hw/char/virtio-serial-bus.c), even a port's name while the guest boots.
        """
        self._pinged = None
        self._slots.connect(self._known)
        self._connected = self._domain()

    def open(self, *, timeout: float) -> None:
        if self._connected is not self._domain():
            self.connect()
        known, self._known = self._known, None
        patience = time.monotonic() + min(timeout, self._scaled(FIRST_SECONDS))
        if known and any(known.shells[:COMMAND_SLOTS]) and self._is_as_saved(known, patience):
            return
        connect_or_install(self, self._domain, self._methods, at_boot=self._at_boot, timeout=timeout)

    def _is_as_saved(self, known: GuestNotes, deadline: float) -> bool:
        """Return whether the shells are those that were saved; one answers for all."""
        with self._slots.explaining_gone():
            self.ping()
            if not self._is_checked(deadline):
                return False
        self._slots.adopt(known)
        return True

    def greet(self, deadline: float) -> bool:
        """Return whether every shell answers by the `deadline` (monotonic clock).

        A shell that runs a command counts as well. Raises `GuestGone` if QEMU has ended.
        """
        return self._slots.greet(deadline)

    def install_script(self) -> str:
        """Return the script that installs the shell in the guest."""
        return install_script()

    def notes(self, reseeder: Reseeder, *, timeout: float) -> GuestNotes:
        if not self._slots.are_idle:
            raise ChannelError("a command still runs in the guest: to save a machine, none may run")
        self.open(timeout=timeout)
        return self.known_notes(reseeder)

    def known_notes(self, reseeder: Reseeder) -> GuestNotes:
        return GuestNotes(reseeder=reseeder, boot=self._slots.boot, shells=self._slots.shells())

    @contextmanager
    def idle(self, *, timeout: float) -> Iterator[None]:
        with self._slots.acquire_all(timeout):
            yield

    def ping(self) -> None:
        if self._pinged is None:
            slot = self._slots.acquire_by(time.monotonic() + self._scaled(KILL_SECONDS))
            IDLE.unpin(slot.wire)
            self._pinged, self._pinged_at = slot, time.monotonic()
            slot.wire.ask(new_mark())

    def check(self, *, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._slots.explaining_gone():
            if self._pinged and time.monotonic() > self._pinged_at + PING_SECONDS:
                self._is_checked(deadline)
            self.ping()
            if not self._is_checked(deadline):
                raise self._slots.hung()

    def _is_checked(self, deadline: float) -> bool:
        """Return whether the slot that was pinged answers by the `deadline`."""
        slot, self._pinged = self._pinged, None
        assert slot  # noqa: S101 - it was pinged
        try:
            return slot.wire.is_answered(deadline)
        finally:
            self._slots.release(slot)

    def boot_id(self, *, timeout: float) -> str:
        self.open(timeout=timeout)
        return self._slots.boot

    def close(self) -> None:
        """Disconnect from the ports."""
        self._connected = None
        self._slots.close()

    def run(self, request: Request, *, timeout: float) -> Completed:
        script = request.script(login=False).encode(errors="surrogateescape")
        if b"$$" in script:  # `$$` in a subshell is the guest shell: `kill -9 $$` would end it
            script = b"sh -c " + quoted(script)
        line, source = program_of(script, request.source)
        out, err = request.sinks()
        return self._completed(line, source, timeout, out=out, err=err, transfer=request.transfer)

    def interact(self, terminal: Terminal) -> None:
        size = f"stty rows {terminal.rows} cols {terminal.columns}"
        script = LOGIN_SHELL.replace("@size@", size).replace("@kind@", shlex.quote(terminal.kind))
        line = b"<exec <&4 4<&-; eval " + quoted(script.encode())
        slot = self._slots.acquire_by(time.monotonic() + self._scaled(KILL_SECONDS))
        try:
            with self._slots.explaining_gone():
                self._shown(slot, line, terminal)
        finally:
            self._slots.release(slot)

    def _shown(self, slot: Slot, line: bytes, terminal: Terminal) -> None:
        """Run a line in `slot`, connected to the `terminal`."""
        IDLE.unpin(slot.wire)
        slot.wire.send(line, new_mark(), out=TerminalSink(terminal))
        try:
            if slot.wire.relay(terminal, lambda: self._slots.expect_answer(slot)).died:
                self._slots.identify(slot)
        except Escaped:
            self._slots.kill(slot)
            raise
        finally:
            if slot.wire.is_idle:
                self._slots.drain(slot)

    def _completed(
        self,
        line: bytes,
        source: Source | None,
        timeout: float,
        *,
        out: Sink | None = None,
        err: Sink | None = None,
        transfer: bool = False,
        drain: bool = False,
    ) -> Completed:
        """Run a line in a free slot, for up to `timeout` seconds.

        With `drain`, unread input is dropped if the line fails. The timeout of a `transfer` restarts whenever
        bytes move.
        """
        slot = self._slots.acquire()
        began = time.monotonic()
        out, err = out or Captured(), err or Captured()
        try:
            with self._slots.explaining_gone():
                IDLE.unpin(slot.wire)
                slot.wire.send(line, new_mark(), source, out=out, err=err)
                idle_timeout = timeout if transfer else None
                try:
                    reply = slot.wire.finish(
                        began + timeout, lambda: self._slots.expect_answer(slot), idle_timeout=idle_timeout
                    )
                except (GuestGone, GuestHung):
                    raise
                except Exception:  # raised by the source
                    self._slots.abandon(slot)
                    raise
                stopped = reply is None
                cut_off = out.is_closed or err.is_closed
                if reply is None:
                    slot.wire.stop_input()
                    reply = self._slots.kill(slot)
                if reply.died:
                    self._slots.identify(slot)
                if slot.wire.has_input and (stopped or (drain and reply.status)):
                    self._slots.drain(slot)
        finally:
            self._slots.release(slot)
        note = b"the guest shell that ran this command was killed, and is restarted\n" if reply.died else b""
        return Completed(
            status=SIGKILL_STATUS if stopped else reply.status,
            stdout=_content(out),
            stderr=_content(err) + note,
            timed_out=stopped and not cut_off,
            cut_off=cut_off,
            began=began,
        )

    def set_clock(self, *, timeout: float) -> None:
        def run(command: str, seconds: float) -> Completed:
            return self._completed(command.encode(), None, seconds)

        set_clock_by_date(run, self._domain(), timeout)

    def put(self, path: str, data: bytes, *, timeout: float) -> None:
        __tracebackhide__ = True
        target = quoted(path.encode(errors="surrogateescape")).decode(errors="surrogateescape")
        take = f"_vmsnap_take {len(data)}" if data else "true"
        line = put_script(target, take, secrets.token_hex(4)).encode(errors="surrogateescape")
        reply = self._completed(b"<" + line, source_of(data), timeout, transfer=True, drain=True)
        reply.expect_done(f"writing {path}", self._domain())

    def get(self, path: str, sink: Sink, *, timeout: float) -> None:
        __tracebackhide__ = True
        line = b"cat -- " + quoted(path.encode(errors="surrogateescape"))
        reply = self._completed(line, None, timeout, out=sink, transfer=True)
        if not reply.cut_off:
            reply.expect_done(f"reading {path}", self._domain())


def _content(sink: Sink) -> bytes:
    """Return what `sink` keeps in memory."""
    return sink.content() if isinstance(sink, Captured) else b""
