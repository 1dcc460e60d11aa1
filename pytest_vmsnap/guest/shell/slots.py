"""The shells in the guest that run commands: which is free, and how to free one from its command."""

from __future__ import annotations

import queue
import re
import secrets
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ChannelError, GuestGone, GuestHung
from pytest_vmsnap.guest.channel import BOOT_ID, expect_alive
from pytest_vmsnap.guest.shell.drain import IDLE
from pytest_vmsnap.guest.shell.scripts import COMMAND_SLOTS, SLOTS
from pytest_vmsnap.guest.shell.virtio_ports import slot_ports
from pytest_vmsnap.guest.shell.wire import Wire
from pytest_vmsnap.guest.streams import Captured, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vmsnap.guest.shell.wire import Reply
    from pytest_vmsnap.host import Domain
    from pytest_vmsnap.model import GuestNotes

GREETING = f"read -r boot <{BOOT_ID}; echo $$ $boot".encode()
GREETED = re.compile(rb"^(\d+) ([0-9a-f-]{36})\n\Z", re.MULTILINE)  # may follow answers to earlier greetings
GREETING_SECONDS = 3.0  # until it is repeated: a guest that reboots loses what it received
LONGEST_ANSWER = 64 << 10  # bytes, of a greeting's answer with the rest of earlier ones
KILL_SECONDS = 15.0  # to kill a command that timed out
KILL_AGAIN_SECONDS = 1.0  # the first attempt does not kill a command that has not started yet
TURN_SECONDS = 1.0  # between two looks at the guest, while a command waits for its turn


@dataclass(slots=True, kw_only=True)
class Slot:
    """One shell in the guest: the wire to it, its process id there, and the boot that it belongs to.

    `greeted` is when the greeting was sent (monotonic clock), None if no answer to it is due. A slot that was
    saved while it ran a command is not `usable`.
    """

    wire: Wire
    shell: int = 0
    boot: str = ""
    greeted: float | None = None
    usable: bool = True
    answer: Captured = field(default_factory=Captured)  # to the greeting


class Slots:
    """The slots of a domain; `domain` returns the current one.

    The last slot takes no commands: it kills those of the others. `scaled` stretches a deadline's
    seconds for a slow host.
    """

    def __init__(self, domain: Callable[[], Domain], *, scaled: Callable[[float], float]) -> None:
        self._domain = domain
        self._scaled = scaled
        self._slots: list[Slot] = []
        self._free: queue.LifoQueue[Slot] = queue.LifoQueue()  # the slot that ran last runs best
        self._rescue = threading.Lock()  # guards the last slot
        self.boot = ""  # the guest's boot id

    def connect(self, known: GuestNotes | None) -> None:
        """Connect to the ports of the current domain.

        `known` are the notes on its guest from when it was saved, None if it boots. Raises `GuestGone` if QEMU
        has ended.
        """
        self.close()
        domain = self._domain()
        self._free = queue.LifoQueue()
        with self.explaining_gone():
            for number in range(SLOTS):
                control, data = (domain.ports[name] for name in slot_ports(number))
                self._slots.append(Slot(wire=Wire(control, data)))
        if known:
            for slot, shell in zip(self._slots, known.shells, strict=False):
                slot.usable = bool(shell)
        for slot in self._slots[:COMMAND_SLOTS]:
            if slot.usable:
                self._free.put(slot)

    def close(self) -> None:
        """Disconnect from every port."""
        slots, self._slots = self._slots, []
        for slot in slots:
            IDLE.unpin(slot.wire)
            slot.wire.close()

    def adopt(self, known: GuestNotes) -> None:
        """Trust that the shells in the guest are those that were saved, without asking each."""
        self.boot = known.boot
        for slot, shell in zip(self._slots, known.shells, strict=True):
            slot.shell, slot.boot = shell, known.boot
            if slot.usable:
                IDLE.watch(slot.wire)

    @property
    def are_idle(self) -> bool:
        """Whether no usable slot runs a command."""
        return all(slot.wire.is_idle for slot in self._slots if slot.usable)

    def shells(self) -> tuple[int, ...]:
        """Return the process id of each slot's shell in the guest, 0 for one that cannot take a command."""
        return tuple(
            slot.shell if slot.usable and slot.wire.is_idle and slot.boot == self.boot else 0
            for slot in self._slots
        )

    def greet(self, deadline: float) -> bool:
        """Return whether every slot answers by the `deadline` (monotonic clock).

        A slot that runs a command counts as well. Raises `GuestGone` if QEMU has ended.
        """
        usable = [slot for slot in self._slots if slot.usable]
        waiting = [slot for slot in usable if slot.greeted is not None or slot.wire.is_idle]
        with self.explaining_gone():
            for slot in waiting:
                now = time.monotonic()
                if slot.greeted is None or now > slot.greeted + GREETING_SECONDS:
                    IDLE.unpin(slot.wire)
                    self._send_greeting(slot)
                    slot.greeted = now
            return all(self._is_greeted(slot, deadline) for slot in waiting)

    def acquire(self) -> Slot:
        """Return a free slot, however long it takes: a command's timeout starts when the command does.

        Raises `GuestGone`, `GuestHung` or `BootError` if the guest ends, hangs or cannot boot meanwhile,
        `ChannelError` if no slot is usable.
        """
        while True:
            try:
                return self._ready(self._free.get(timeout=TURN_SECONDS))
            except queue.Empty:
                expect_alive(self._domain())
                if not any(slot.usable for slot in self._slots[:COMMAND_SLOTS]):
                    raise ChannelError(
                        "all shells in the guest were saved while they ran commands: none is free for another",
                        hint="open it with --ssh or --console",
                    ) from None

    def acquire_by(self, deadline: float) -> Slot:
        """Return a free slot; raise `ChannelError` if none is free by the `deadline` (monotonic clock)."""
        try:
            slot = self._free.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise ChannelError(f"{COMMAND_SLOTS} commands, the most at once, still run in the guest") from None
        return self._ready(slot)

    @contextmanager
    def acquire_all(self, timeout: float) -> Iterator[None]:
        """Keep commands from starting; raises `ChannelError` if one still runs after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        taken: list[Slot] = []
        try:
            for _ in range(sum(slot.usable for slot in self._slots[:COMMAND_SLOTS])):
                taken.append(self._free.get(timeout=max(0.0, deadline - time.monotonic())))  # noqa: PERF401
            yield
        except queue.Empty:
            raise ChannelError(
                f"a command still runs in the guest after {timeout:g} s: to save a machine, none may run",
                hint="start what must keep running with vm.popen",
            ) from None
        finally:
            for slot in taken:
                self.release(slot)

    def release(self, slot: Slot) -> None:
        """Free `slot` for another command."""
        if slot in self._slots:
            if slot.wire.is_idle:
                IDLE.watch(slot.wire)
            self._free.put(slot)

    def kill(self, slot: Slot) -> Reply:
        """Kill the command of `slot` and all that it started, and return its reply.

        Raises `GuestHung` if the guest does not answer.
        """
        rescue = self._slots[-1]
        with self._rescue:
            deadline = time.monotonic() + self._scaled(KILL_SECONDS)
            IDLE.unpin(rescue.wire)
            reply = None
            while reply is None:
                rescue.wire.send(f"_vmsnap_kill {slot.shell}".encode(), new_mark())
                done = rescue.wire.finish(deadline)
                reply = slot.wire.finish(min(deadline, time.monotonic() + KILL_AGAIN_SECONDS))
                if done is None or (reply is None and time.monotonic() >= deadline):
                    raise self.hung()
                if reply is None:
                    slot.wire.remind()
            IDLE.watch(rescue.wire)
            slot.wire.ask(new_mark())  # a command killed while it answered may be answered twice
            if not slot.wire.is_answered(deadline):
                raise self.hung()
        return reply

    def drain(self, slot: Slot) -> None:
        """Have the guest read the rest of an input, up to a mark."""
        end = new_mark()
        until = b"<LC_ALL=C grep -q " + end + b" <&4"
        slot.wire.send(until, new_mark(), source_of(b"\n" + end + b"\n"))
        if slot.wire.finish(time.monotonic() + self._scaled(KILL_SECONDS)) is None:
            raise self.hung()

    def abandon(self, slot: Slot) -> None:
        """Kill the command of `slot`, and have the guest read the input that was already sent."""
        slot.wire.stop_input()
        if self.kill(slot).died:
            self.identify(slot)
        self.drain(slot)

    def identify(self, slot: Slot) -> None:
        """Ask the new shell of `slot` for its process id; raises `GuestHung` if it does not answer."""
        self._send_greeting(slot)
        if not self._is_greeted(slot, time.monotonic() + self._scaled(KILL_SECONDS)):
            raise self.hung()

    def expect_answer(self, slot: Slot) -> None:
        """Raise `GuestGone` or `GuestHung` if `slot` can never answer."""
        if slot.boot != self.boot:
            raise GuestHung("the guest rebooted meanwhile", console=self._domain().console_text())
        expect_alive(self._domain())

    def hung(self) -> GuestHung:
        """Return the error for a guest that does not answer."""
        return GuestHung("the guest does not answer", console=self._domain().console_text())

    @contextmanager
    def explaining_gone(self) -> Iterator[None]:
        """Make a `GuestGone` from the block name the domain and show its console."""
        try:
            yield
        except GuestGone as error:
            domain = self._domain()
            raise GuestGone(f"{domain.name} has ended", console=domain.console_text()) from error

    def _send_greeting(self, slot: Slot) -> None:
        slot.answer = Captured(LONGEST_ANSWER)
        slot.wire.send(GREETING, new_mark(), out=slot.answer)

    def _is_greeted(self, slot: Slot, deadline: float) -> bool:
        if slot.wire.finish(deadline) is None:
            return False
        slot.greeted = None
        if not (answer := GREETED.search(slot.answer.content())):
            return False  # it followed a part of an earlier line
        slot.shell, slot.boot = int(answer[1]), answer[2].decode()
        self.boot = slot.boot
        IDLE.watch(slot.wire)
        return True

    def _ready(self, slot: Slot) -> Slot:
        """Return `slot`, which was free, ready for a command."""
        if not slot.wire.is_idle:  # the wait for its command was interrupted
            try:
                self._recover(slot)
            except BaseException:
                self._free.put(slot)
                raise
        return slot

    def _recover(self, slot: Slot) -> None:
        had_input = slot.wire.has_input
        slot.wire.stop_input()
        # after a reboot, the command has ended with its boot
        if slot.boot != self.boot or self.kill(slot).died:
            self.identify(slot)
        elif had_input:
            self.drain(slot)


def new_mark() -> bytes:
    """Return a new mark, which ends one command's output and occurs in no other."""
    return secrets.token_hex(8).encode()
