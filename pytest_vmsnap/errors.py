"""Every error of the plugin, by who must act.

::

    VmsnapError
    ├── HostError                 the host lacks something; `hint` says what to do
    │   ├── NoHypervisor          libvirt or QEMU is missing, or may not be used
    │   └── AcceleratorError      the accelerator that was asked for does not work
    ├── SpecError                 the machine that was asked for cannot be
    ├── ImageError                the base image cannot be had
    ├── BootError                 the guest did not come up
    ├── StateError
    │   ├── UnknownState          no such state
    │   └── StateFailed           the preparation of a state failed
    ├── StoreError
    │   ├── StoreDamaged          an entry is not what was saved
    │   ├── StoreFull             no space for another entry
    │   └── StoreFormat           the store is of another version
    ├── RevertError               a clean machine cannot be given
    │   └── RepairFailed          a clone could not be made sound
    ├── ChannelError              commands do not reach the guest
    │   ├── GuestHung             the guest is there and does not answer
    │   └── GuestGone             the guest's QEMU has ended
    ├── CommandError
    │   ├── CommandFailed         also an AssertionError
    │   ├── CommandSucceeded      also an AssertionError
    │   ├── CommandTimeout        also a TimeoutError
    │   └── OutputTooLong         it printed more than is kept in memory, and was ended
    ├── WaitTimeout               also a TimeoutError
    ├── MachineReleased           a machine was used after its test
    └── PromiseBroken             a read-only test changed its machine; also an AssertionError

Errors carry their parts as fields, build the message in ``__str__``, and survive pickling, since
pytest-xdist sends them from worker to controller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_vmsnap.readable import readable, words_of_qemu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vmsnap.model.result import Result

TAIL_LINES = 20
EDGE_LINES = 8  # of the beginning and of the end of what was too long
LONGEST_LINE = 200  # characters of such a line
SHOWN_BYTES = 64 << 10  # of a stream, of which the last lines are shown


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """The last `lines` lines of `text`."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def _block(title: str, text: str, lines: int = TAIL_LINES) -> str:
    """`text`'s last lines, readable and indented under a title; empty if there are none."""
    body = tail(readable(text[-SHOWN_BYTES:]), lines)
    return f"\n{title}:\n" + "\n".join(f"  {line}" for line in body.splitlines()) if body else ""


def _ends(text: str) -> str:
    """The first and the last lines of `text`, each cut where it is long."""
    lines = text.splitlines()
    if len(lines) > 2 * EDGE_LINES:
        lines = [*lines[:EDGE_LINES], "[...]", *lines[-EDGE_LINES:]]
    return "\n".join(line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}[...]" for line in lines)


def _rebuilt(kind: type[VmsnapError], fields: dict[str, Any]) -> VmsnapError:
    error = kind.__new__(kind)
    error.__dict__.update(fields)
    return error


class VmsnapError(Exception):
    """Base of all errors of the plugin.

    `message` is what happened; `hint` is what the person can do, or empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.__dict__)


DOCTOR = "`vmsnap doctor` looks at all that a machine needs on this host"


class HostError(VmsnapError):
    """The host lacks something that a machine needs."""

    def point_to_doctor(self) -> None:
        """Add where all of the host is looked at, once: where this is told to a person in full."""
        if DOCTOR not in self.hint:
            self.hint = "\n".join(filter(None, [self.hint, DOCTOR]))


class NoHypervisor(HostError):
    """libvirt or QEMU is missing, does not answer, or may not be used."""


class AcceleratorError(HostError):
    """The accelerator that was asked for does not work here."""


class SpecError(VmsnapError):
    """A machine was asked for that cannot be, or that QEMU could not save."""


class ImageError(VmsnapError):
    """The base image is missing, damaged, or could not be fetched or built."""


class BootError(VmsnapError):
    """The guest did not come up; `console` is what it printed, `log` what QEMU did."""

    def __init__(self, message: str, *, hint: str = "", console: str = "", log: str = "") -> None:
        super().__init__(message, hint=hint)
        self.console = console
        self.log = log

    def __str__(self) -> str:
        return (
            super().__str__()
            + (_block("the console's last lines", self.console) or "\nthe console is empty")
            + _block("QEMU says", words_of_qemu(self.log))
        )


class StateError(VmsnapError):
    """Something is wrong with a state."""


class UnknownState(StateError):
    """A state was asked for that nobody defines."""


class StateFailed(StateError):
    """The preparation of a state failed; the cause is its ``__cause__``."""


class StoreError(VmsnapError):
    """Something is wrong with the store."""


class StoreDamaged(StoreError):
    """An entry of the store is not what was saved."""


class StoreFull(StoreError):
    """There is no space for another entry."""


class StoreFormat(StoreError):
    """The store was written by another version of the plugin."""


class RevertError(VmsnapError):
    """A clean machine cannot be given."""


class RepairFailed(RevertError):
    """A clone could not be made sound, so it is not handed out."""


class ChannelError(VmsnapError):
    """Commands or data do not reach the guest; `console` is what the guest printed, `log` what QEMU did."""

    def __init__(self, message: str, *, hint: str = "", console: str = "", log: str = "") -> None:
        super().__init__(message, hint=hint)
        self.console = console
        self.log = log

    def __str__(self) -> str:
        return (
            super().__str__()
            + _block("the console's last lines", self.console)
            + _block("QEMU says", words_of_qemu(self.log))
        )


class GuestHung(ChannelError):
    """The guest's QEMU is there, and the guest does not answer."""


class GuestGone(ChannelError):
    """The guest's QEMU has ended, or the guest has shut down."""


class CommandError(VmsnapError):
    """A command did not do what the test said it would."""

    def __init__(self, message: str, *, result: Result) -> None:
        super().__init__(message)
        self.result = result

    def __str__(self) -> str:
        return (
            self.message
            + _block("stdout", self.result.stdout[-SHOWN_BYTES:].decode(errors="replace"), 40)
            + _block("stderr", self.result.stderr[-SHOWN_BYTES:].decode(errors="replace"), 40)
        )


class CommandFailed(CommandError, AssertionError):
    """A command that was to succeed did not; `result` has both streams."""


class CommandSucceeded(CommandError, AssertionError):
    """A command that was to fail succeeded; `result` has both streams."""


class CommandTimeout(CommandError, TimeoutError):
    """A command ran over its time and was killed; `result` has what it had printed."""


class OutputTooLong(CommandError):
    """A command printed more than is kept in memory, and was ended; `result` has the first and last of it."""

    def __init__(self, message: str, *, result: Result, hint: str = "") -> None:
        super().__init__(message, result=result)
        self.hint = hint

    def __str__(self) -> str:
        blocks = [
            _block(
                f"{name}: its first and last lines", _ends(stream.decode(errors="replace")), 2 * EDGE_LINES + 1
            )
            for name, stream in (("stdout", self.result.stdout), ("stderr", self.result.stderr))
        ]
        return "\n".join(filter(None, [self.message, self.hint])) + "".join(blocks)


class WaitTimeout(VmsnapError, TimeoutError):
    """What was waited for did not happen; `detail` has the last that was seen."""

    def __init__(self, message: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(message, hint=hint)
        self.detail = detail

    def __str__(self) -> str:
        return super().__str__() + _block("the last that was seen", self.detail, 40)


class MachineReleased(VmsnapError):
    """A machine was used after the test that it belonged to."""


class PromiseBroken(VmsnapError, AssertionError):
    """A test that promised to change nothing did; `changes` are a line for each."""

    def __init__(self, message: str, *, hint: str = "", changes: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.changes = list(changes)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  {line}" for line in self.changes), *filter(None, [self.hint])])
