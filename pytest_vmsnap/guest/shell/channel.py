"""The planted shell as a channel."""

from __future__ import annotations

import logging
import queue
import re
import secrets
import shlex
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ChannelError, GuestGone, GuestHung
from pytest_vmsnap.guest.channel import BOOT_ID, Completed, expect_alive, put_script, set_clock_by_date
from pytest_vmsnap.guest.planting import reach
from pytest_vmsnap.guest.shell.idle import IDLE
from pytest_vmsnap.guest.shell.ports import slot_ports
from pytest_vmsnap.guest.shell.source import COMMAND_SLOTS, SLOTS, planting_script
from pytest_vmsnap.guest.shell.wire import Shown, Wire
from pytest_vmsnap.guest.streams import Captured, joined, source_of
from pytest_vmsnap.guest.terminal import Escaped
from pytest_vmsnap.model import GuestNotes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_vmsnap.guest.channel import Request
    from pytest_vmsnap.guest.planting import Way
    from pytest_vmsnap.guest.shell.wire import Reply
    from pytest_vmsnap.guest.streams import Sink, Source
    from pytest_vmsnap.guest.terminal import Terminal
    from pytest_vmsnap.host import Domain
    from pytest_vmsnap.model import Reseeder

log = logging.getLogger("pytest_vmsnap.shell")

GREETING = f"read -r boot <{BOOT_ID}; echo $$ $boot".encode()
GREETED = re.compile(rb"^(\d+) ([0-9a-f-]{36})\n\Z", re.MULTILINE)  # behind what others were answered
GREETING_SECONDS = 3.0  # until it is said again: a guest that reboots loses what it had received
# script(1) of util-linux or busybox makes a terminal; without it the shell has none, and shows what it can
LOGIN_SHELL = """
export TERM=@kind@
shell=$(command -v bash || echo /bin/sh)
cd
if command -v script >/dev/null; then exec script -qfc "@size@; exec $shell -l" /dev/null; fi
exec "$shell" -i 2>&1
"""
NUDGE_SECONDS = 1.0  # for which an answer ahead proves that it is there
FIRST_SECONDS = 10.0  # for a clone's first sign of life; what does not give it is greeted like any other
KILL_SECONDS = 15.0  # for the killing of a command that ran over
KILL_AGAIN_SECONDS = 1.0  # a command that had not begun yet is not ended by the first try
SIGKILL_STATUS = 128 + 9
LONGEST_ANSWER = 64 << 10  # bytes, of a greeting with what others wrote before it
TURN_SECONDS = 1.0  # between two looks at the guest, while a command waits for its turn
# The shell reads its line byte by byte, as it must on what cannot seek; a process that reads at once costs
# a fork. Where both cost the same.
LONGEST_LINE = 1500  # bytes


@dataclass(slots=True, kw_only=True)
class Slot:
    """One of the guest's shells: the wire to it, its process id in the guest and which boot that is of.

    `greeted` is since when it is greeted (monotonic clock), None while no greeting is on its way. One that is
    not `usable` was saved while it ran a command.
    """

    wire: Wire
    shell: int = 0
    boot: str = ""
    greeted: float | None = None
    usable: bool = True
    answer: Captured = field(default_factory=Captured)  # to the greeting that is on its way


class ShellChannel:
    """The shell that was planted in a domain; `domain` gives the one that is there now.

    It is planted by one of `ways` where the guest does not start it by itself, as `at_boot` says that it does.
    `known` is what is known of the guest in the first domain from before it was saved. `scaled` makes of a
    deadline's seconds those that hold here.
    """

    name = "shell"
    needs_network = False

    def __init__(
        self,
        domain: Callable[[], Domain],
        *,
        ways: Sequence[Way] = (),
        at_boot: bool = False,
        known: GuestNotes | None = None,
        scaled: Callable[[float], float] = float,
    ) -> None:
        self._domain = domain
        self._scaled = scaled
        self._ways = ways
        self._at_boot = at_boot
        self._known = known
        self._nudged: Slot | None = None
        self._nudged_at = 0.0  # monotonic clock
        self._connected: Domain | None = None
        self._boot = ""
        self._rescue = threading.Lock()  # of the last slot
        self._slots: list[Slot] = []
        self._free: queue.LifoQueue[Slot] = queue.LifoQueue()  # what ran last runs best

    def connect(self) -> None:
        """Connect to the ports of the domain that is there now: before it runs, so that its shell never waits.

        A guest that reads a port with nobody at its other end finds the end of the file, and has to poll. Once
        for a domain: each end that comes or goes is a control message, and QEMU drops those that find no place
        in its queue of 32 (hw/char/virtio-serial-bus.c), a port's name too while the guest boots.
        """
        self.close()
        domain = self._domain()
        self._free = queue.LifoQueue()
        self._nudged = None
        try:
            for number in range(SLOTS):
                control, data = (domain.ports[name] for name in slot_ports(number))
                self._slots.append(Slot(wire=Wire(control, data)))
        except GuestGone as error:
            raise self._gone() from error
        self._connected = domain
        if self._known:
            for slot, shell in zip(self._slots, self._known.shells, strict=False):
                slot.usable = bool(shell)
        for slot in self._slots[:COMMAND_SLOTS]:
            if slot.usable:
                self._free.put(slot)

    def open(self, *, timeout: float) -> None:
        if self._connected is not self._domain():
            self.connect()
        known, self._known = self._known, None
        patience = time.monotonic() + min(timeout, self._scaled(FIRST_SECONDS))
        if known and any(known.shells[:COMMAND_SLOTS]) and self._is_as_saved(known, patience):
            return
        reach(self, self._domain, self._ways, at_boot=self._at_boot, timeout=timeout)

    def _is_as_saved(self, known: GuestNotes, deadline: float) -> bool:
        """Whether the shells are those that were saved; one answers for all."""
        try:
            self.nudge()
            if not self._is_checked(deadline):
                return False
        except GuestGone as error:
            raise self._gone() from error
        self._boot = known.boot
        for slot, shell in zip(self._slots, known.shells, strict=True):
            slot.shell, slot.boot = shell, known.boot
            if slot.usable:
                IDLE.watch(slot.wire)
        return True

    def planted(self) -> str:
        """The script that puts the shell into the guest."""
        return planting_script()

    def greet(self, deadline: float) -> bool:
        """Whether every slot answers by the `deadline` (monotonic clock).

        Raises `GuestGone` where QEMU has ended. Slots that run a command are well.
        """
        usable = [slot for slot in self._slots if slot.usable]
        waiting = [slot for slot in usable if slot.greeted is not None or slot.wire.is_idle]
        try:
            for slot in waiting:
                now = time.monotonic()
                if slot.greeted is None or now > slot.greeted + GREETING_SECONDS:
                    IDLE.leave(slot.wire)
                    self._say_hello(slot)
                    slot.greeted = now
            return all(self._answered(slot, deadline) for slot in waiting)
        except GuestGone as error:
            raise self._gone() from error

    @staticmethod
    def _say_hello(slot: Slot) -> None:
        slot.answer = Captured(LONGEST_ANSWER)
        slot.wire.send(GREETING, _mark(), out=slot.answer)

    def _answered(self, slot: Slot, deadline: float) -> bool:
        if slot.wire.finish(deadline) is None:
            return False
        slot.greeted = None
        if not (answer := GREETED.search(slot.answer.content())):
            return False  # it came behind a piece of a line that was sent before
        slot.shell, slot.boot = int(answer[1]), answer[2].decode()
        self._boot = slot.boot
        IDLE.watch(slot.wire)
        return True

    def notes(self, reseeder: Reseeder, *, timeout: float) -> GuestNotes:
        if not all(slot.wire.is_idle for slot in self._slots if slot.usable):
            raise ChannelError("a command still runs in the guest: it can be saved when none does")
        self.open(timeout=timeout)
        return self.known_notes(reseeder)

    def known_notes(self, reseeder: Reseeder) -> GuestNotes:
        well = [slot.usable and slot.wire.is_idle and slot.boot == self._boot for slot in self._slots]
        shells = tuple(slot.shell if usable else 0 for slot, usable in zip(self._slots, well, strict=True))
        return GuestNotes(reseeder=reseeder, boot=self._boot, shells=shells)

    @contextmanager
    def still(self, *, timeout: float) -> Iterator[None]:
        deadline = time.monotonic() + timeout
        taken: list[Slot] = []
        try:
            for _ in range(sum(slot.usable for slot in self._slots[:COMMAND_SLOTS])):
                taken.append(self._free.get(timeout=max(0.0, deadline - time.monotonic())))  # noqa: PERF401
            yield
        except queue.Empty:
            raise ChannelError(
                f"a command still runs in the guest after {timeout:g} s, and a machine is saved when none does",
                hint="use vm.popen for what is to go on",
            ) from None
        finally:
            for slot in taken:
                self._put_back(slot)

    def nudge(self) -> None:
        if self._nudged is None:
            slot = self._taken(time.monotonic() + self._scaled(KILL_SECONDS))
            IDLE.leave(slot.wire)
            self._nudged, self._nudged_at = slot, time.monotonic()
            slot.wire.ask(_mark())

    def check(self, *, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        try:
            if self._nudged and time.monotonic() > self._nudged_at + NUDGE_SECONDS:
                self._is_checked(deadline)
            self.nudge()
            if not self._is_checked(deadline):
                raise GuestHung("the guest does not answer", console=self._domain().console_text())
        except GuestGone as error:
            raise self._gone() from error

    def _is_checked(self, deadline: float) -> bool:
        """Whether the slot that was nudged has answered by the `deadline`."""
        slot, self._nudged = self._nudged, None
        assert slot  # noqa: S101 - it was nudged
        try:
            return slot.wire.is_answered(deadline)
        finally:
            self._put_back(slot)

    def boot_id(self, *, timeout: float) -> str:
        self.open(timeout=timeout)
        return self._boot

    def close(self) -> None:
        """Let go of the ports."""
        slots, self._slots = self._slots, []
        self._connected = None
        for slot in slots:
            IDLE.leave(slot.wire)
            slot.wire.close()

    def run(self, request: Request, *, timeout: float) -> Completed:
        script = request.script(login=False).encode(errors="surrogateescape")
        if b"$$" in script:  # in a subshell that is the planted shell: `kill -9 $$` would end it
            script = b"sh -c " + _quoted(script)
        line, source = _program(script, request.source)
        out, err = request.sinks()
        return self._completed(line, source, timeout, out=out, err=err, transfer=request.transfer)

    def interact(self, terminal: Terminal) -> None:
        slot = self._taken(time.monotonic() + self._scaled(KILL_SECONDS))
        try:
            IDLE.leave(slot.wire)
            size = f"stty rows {terminal.rows} cols {terminal.columns}"
            script = LOGIN_SHELL.replace("@size@", size).replace("@kind@", shlex.quote(terminal.kind))
            line = b"<exec <&4 4<&-; eval " + _quoted(script.encode())
            slot.wire.send(line, _mark(), out=Shown(terminal))
            try:
                if slot.wire.relay(terminal, lambda: self._look(slot)).died:
                    self._meet(slot)
            except Escaped:
                self._killed(slot)
                raise
            finally:
                if slot.wire.is_idle:
                    self._drain(slot)
        except GuestGone as error:
            raise self._gone() from error
        finally:
            self._put_back(slot)

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
        """Run a line in a free slot, for `timeout` seconds; with `drain`, its input may be left where it fails.

        The time of a `transfer` begins anew whenever bytes move.
        """
        slot = self._slot_in_turn()
        began = time.monotonic()
        out, err = out or Captured(), err or Captured()
        try:
            IDLE.leave(slot.wire)
            slot.wire.send(line, _mark(), source, out=out, err=err)
            idle_timeout = timeout if transfer else None
            try:
                reply = slot.wire.finish(began + timeout, lambda: self._look(slot), idle_timeout=idle_timeout)
            except (GuestGone, GuestHung):
                raise
            except Exception:  # of the source
                self._give_up(slot)
                raise
            stopped = reply is None
            cut_off = out.is_closed or err.is_closed
            if reply is None:
                slot.wire.stop_input()
                reply = self._killed(slot)
            if reply.died:
                self._meet(slot)
            if slot.wire.has_input and (stopped or (drain and reply.status)):
                self._drain(slot)
        except GuestGone as error:
            raise self._gone() from error
        finally:
            self._put_back(slot)
        note = b"the shell that ran this command was killed, and is started again\n" if reply.died else b""
        return Completed(
            status=SIGKILL_STATUS if stopped else reply.status,
            stdout=_content(out),
            stderr=_content(err) + note,
            timed_out=stopped and not cut_off,
            cut_off=cut_off,
            began=began,
        )

    def _give_up(self, slot: Slot) -> None:
        """End the slot's command, and have the guest read what was sent of its input."""
        slot.wire.stop_input()
        if self._killed(slot).died:
            self._meet(slot)
        self._drain(slot)

    def _slot_in_turn(self) -> Slot:
        """A free slot, however long it takes: each command that runs has a time-out of its own.

        Raises `GuestGone` and `GuestHung` where the guest has ended meanwhile, or hangs.
        """
        while True:
            try:
                return self._usable(self._free.get(timeout=TURN_SECONDS))
            except queue.Empty:
                expect_alive(self._domain())
                if not any(slot.usable for slot in self._slots[:COMMAND_SLOTS]):
                    raise ChannelError(
                        "every shell in the guest was saved while it ran a command: none is free for another",
                        hint="open it with --ssh or --console",
                    ) from None

    def _taken(self, deadline: float) -> Slot:
        """A free slot, by the `deadline` (monotonic clock)."""
        try:
            slot = self._free.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise ChannelError(f"{COMMAND_SLOTS} commands run at once already, and none has ended") from None
        return self._usable(slot)

    def _usable(self, slot: Slot) -> Slot:
        """`slot`, which was free, ready for a command."""
        if not slot.wire.is_idle:  # whoever waited for it was interrupted
            try:
                self._recover(slot)
            except BaseException:
                self._free.put(slot)
                raise
        return slot

    def _recover(self, slot: Slot) -> None:
        had_input = slot.wire.has_input
        slot.wire.stop_input()
        # another boot: its command ended with the one that it was of
        if slot.boot != self._boot or self._killed(slot).died:
            self._meet(slot)
        elif had_input:
            self._drain(slot)

    def _meet(self, slot: Slot) -> None:
        """Learn the process id of the slot's shell, which is another than before."""
        self._say_hello(slot)
        if not self._answered(slot, time.monotonic() + self._scaled(KILL_SECONDS)):
            raise GuestHung("the guest does not answer", console=self._domain().console_text())

    def _put_back(self, slot: Slot) -> None:
        if slot in self._slots:
            if slot.wire.is_idle:
                IDLE.watch(slot.wire)
            self._free.put(slot)

    def _killed(self, slot: Slot) -> Reply:
        """Kill what the slot's command has started; returns what it came to.

        Raises `GuestHung` where the guest does not answer.
        """
        rescue = self._slots[-1]
        with self._rescue:
            deadline = time.monotonic() + self._scaled(KILL_SECONDS)
            IDLE.leave(rescue.wire)
            reply = None
            while reply is None:
                rescue.wire.send(f"_vmsnap_kill {slot.shell}".encode(), _mark())
                done = rescue.wire.finish(deadline)
                reply = slot.wire.finish(min(deadline, time.monotonic() + KILL_AGAIN_SECONDS))
                if done is None or (reply is None and time.monotonic() >= deadline):
                    raise GuestHung("the guest does not answer", console=self._domain().console_text())
                if reply is None:
                    slot.wire.remind()
            IDLE.watch(rescue.wire)
            slot.wire.ask(_mark())  # one that was killed as it answered may be answered for again
            if not slot.wire.is_answered(deadline):
                raise GuestHung("the guest does not answer", console=self._domain().console_text())
        return reply

    def _drain(self, slot: Slot) -> None:
        """Have the guest read what is left of an input, up to a mark."""
        end = _mark()
        until = b"<LC_ALL=C grep -q " + end + b" <&4"
        slot.wire.send(until, _mark(), source_of(b"\n" + end + b"\n"))
        if slot.wire.finish(time.monotonic() + self._scaled(KILL_SECONDS)) is None:
            raise GuestHung("the guest does not answer", console=self._domain().console_text())

    def set_clock(self, *, timeout: float) -> None:
        def run(command: str, seconds: float) -> Completed:
            return self._completed(command.encode(), None, seconds)

        set_clock_by_date(run, self._domain(), timeout)

    def put(self, path: str, data: bytes, *, timeout: float) -> None:
        __tracebackhide__ = True
        target = _quoted(path.encode(errors="surrogateescape")).decode(errors="surrogateescape")
        take = f"_vmsnap_take {len(data)}" if data else "true"
        line = put_script(target, take, secrets.token_hex(4)).encode(errors="surrogateescape")
        reply = self._completed(b"<" + line, source_of(data), timeout, transfer=True, drain=True)
        reply.expect_done(f"writing {path}", self._domain())

    def get(self, path: str, sink: Sink, *, timeout: float) -> None:
        __tracebackhide__ = True
        line = b"cat -- " + _quoted(path.encode(errors="surrogateescape"))
        reply = self._completed(line, None, timeout, out=sink, transfer=True)
        if not reply.cut_off:
            reply.expect_done(f"reading {path}", self._domain())

    def _look(self, slot: Slot) -> None:
        """End the wait for an answer that will never come."""
        if slot.boot != self._boot:
            raise GuestHung("the guest has rebooted meanwhile", console=self._domain().console_text())
        expect_alive(self._domain())

    def _gone(self) -> GuestGone:
        domain = self._domain()
        return GuestGone(f"{domain.name} has ended", console=domain.console_text())


def _mark() -> bytes:
    return secrets.token_hex(8).encode()


def _quoted(text: bytes) -> bytes:
    """For the guest's shell, in one line: a new line is a variable there."""
    quoted = shlex.quote(text.decode(errors="surrogateescape")).encode(errors="surrogateescape")
    return quoted.replace(b"\n", b"'\"$_vmsnap_new\"'")


def _content(sink: Sink) -> bytes:
    """What `sink` keeps in memory."""
    return sink.content() if isinstance(sink, Captured) else b""


def _program(script: bytes, source: Source | None) -> tuple[bytes, Source | None]:
    """The line that runs `script` with `source` as its input, and what goes by the input's port.

    The line begins with ``<`` where it reads that port. What the script does not read of its input is read
    behind it, and a long script comes as input itself.
    """
    if len(script) > LONGEST_LINE:
        taken = b"<_vmsnap_script=$(_vmsnap_take %d); " % len(script)
        body, sent = b'"$_vmsnap_script"', script
    else:
        taken, body, sent = b"<", _quoted(script), b""
    if source:
        rest = b"IFS= read -r _vmsnap_rest 2>/dev/null && cat >/dev/null; exit $_vmsnap_status"
        guarded = b"{ exec 4<&-; ( eval %s ); _vmsnap_status=$?; %s; }" % (body, rest)
        line = b"%s_vmsnap_take %d | %s" % (taken, source.size, guarded)
        return line, joined(sent, source) if sent else source
    if sent:
        return taken + b"exec 4<&-; eval " + body, source_of(sent)
    plain = b"\n" not in script and script[:1] not in (b"", b"<", b"#", b"?")
    return script if plain else b"eval " + body, None
