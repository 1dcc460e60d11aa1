"""All errors of the plugin.

::

    VmsnapError
    ├── HostError                 the host lacks something; `hint` says what to do
    │   ├── NoHypervisor          libvirt or QEMU is missing, or refuses your user
    │   └── AcceleratorError      the accelerator that you asked for does not work
    ├── SpecError                 the machine that you asked for is not possible
    ├── ImageError                the base image is missing or cannot be used
    ├── BootError                 the guest did not boot
    ├── StateError
    │   ├── UnknownState          there is no state of this name
    │   └── StateFailed           the preparation of a state failed
    ├── StoreError
    │   ├── StoreDamaged          a file in the store is not what was saved
    │   ├── StoreFull             there is no space for an entry or a machine
    │   ├── StoreFormat           another version of the plugin wrote the store
    │   └── RegistryError         a registry does not answer, or its answer cannot be used
    ├── RevertError               the plugin cannot provide a clean machine
    │   └── RepairFailed          a clone could not be repaired, or is not clean
    ├── ChannelError              commands do not reach the guest
    │   ├── GuestHung             QEMU runs, but the guest does not answer
    │   └── GuestGone             QEMU has ended, or the guest has shut down
    ├── SwitchGone                the switch of a cluster's private network has ended
    ├── CommandError
    │   ├── CommandFailed         also an AssertionError
    │   ├── CommandSucceeded      also an AssertionError
    │   ├── CommandTimeout        also a TimeoutError
    │   └── OutputTooLong         the command printed more than the plugin keeps in memory
    ├── WaitTimeout               also a TimeoutError
    ├── MachineReleased           a test used a machine that is no longer its own
    └── PromiseBroken             a read-only test changed its machine; also an AssertionError

Errors store their parts as fields and build the message in ``__str__``. They can be pickled, because
pytest-xdist sends them from workers to the controller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_vmsnap.readable import qemu_output, readable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vmsnap.model.result import Result

TAIL_LINES = 20
EDGE_LINES = 8  # shown from the start and from the end of output that is too long
LONGEST_LINE = 200  # characters shown of each of these lines
SHOWN_BYTES = 64 << 10  # at the end of a stream; the last lines are taken from these


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """The last `lines` lines of `text`."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def _block(title: str, text: str, lines: int = TAIL_LINES) -> str:
    """The last lines of `text`, readable and indented below `title`; empty if there are none."""
    body = tail(readable(text[-SHOWN_BYTES:]), lines)
    return f"\n{title}:\n" + "\n".join(f"  {line}" for line in body.splitlines()) if body else ""


def _ends(text: str) -> str:
    """The first and last lines of `text`; long lines are cut."""
    lines = text.splitlines()
    if len(lines) > 2 * EDGE_LINES:
        lines = [*lines[:EDGE_LINES], "[...]", *lines[-EDGE_LINES:]]
    return "\n".join(line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}[...]" for line in lines)


def _rebuilt(kind: type[VmsnapError], fields: dict[str, Any]) -> VmsnapError:
    error = kind.__new__(kind)
    error.__dict__.update(fields)
    return error


class VmsnapError(Exception):
    """The base class of all errors of the plugin.

    `message` says what happened; `hint` says what to do, and may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.__dict__)


DOCTOR = "`vmsnap doctor` checks everything that machines need on this host"


class HostError(VmsnapError):
    """The host lacks something that a machine needs.

    Cause: a package is missing, a version is too old, a file is not accessible, or libvirt failed a request.
    Remedy: follow the hint, or run ``vmsnap doctor``, which checks everything that machines need.
    """

    def point_to_doctor(self) -> None:
        """Add ``vmsnap doctor`` to the hint, unless it is there already; for an error reported in full."""
        if DOCTOR not in self.hint:
            self.hint = "\n".join(filter(None, [self.hint, DOCTOR]))


class NoHypervisor(HostError):
    """libvirt or QEMU is missing, does not answer, or refuses your user.

    Cause: the packages are not installed, the daemon does not run, or you are not in its group. Remedy: install
    and run what the hint names. In CI, ``vmsnap_missing=skip`` skips the tests instead.
    """


class AcceleratorError(HostError):
    """The accelerator that you asked for does not work on this host.

    Cause: ``vmsnap_accel=kvm`` is set, but ``/dev/kvm`` is missing, cannot be opened, or cannot run a guest.
    Remedy: give your user access to ``/dev/kvm`` (``vmsnap doctor`` shows how), or use ``vmsnap_accel=auto``,
    which falls back to software emulation.
    """


class SpecError(VmsnapError):
    """You asked for a machine that is not possible, or for something that your machine does not have.

    Cause: the fields of `MachineSpec` or of a marker are invalid or contradict each other, QEMU cannot save a
    device, or the machine lacks a feature, such as a port without a network. Remedy: change the value that the
    message names.
    """


class ImageError(VmsnapError):
    """The base image is missing, damaged, cannot boot, or could not be downloaded or built.

    Cause: the message names it; after a failed build it shows the last lines of mmdebstrap. Remedy: correct
    ``vmsnap_image`` and the options that go with it, or install what the build needs (see ``vmsnap doctor``).
    """


class BootError(VmsnapError):
    """The guest did not boot; `console` is what it printed, `log` is what QEMU printed.

    Cause: the message says where the boot stopped, and shows the end of the console. Remedy: see "When it does
    not boot" in the how-to on images of your own; on a slow host, raise ``vmsnap_timeout_factor``.
    """

    def __init__(self, message: str, *, hint: str = "", console: str = "", log: str = "") -> None:
        super().__init__(message, hint=hint)
        self.console = console
        self.log = log

    def __str__(self) -> str:
        return (
            super().__str__()
            + (_block("last lines of the console", self.console) or "\nthe console is empty")
            + _block("QEMU printed", qemu_output(self.log))
        )


class StateError(VmsnapError):
    """The declaration of a state is invalid; also the base of the other errors of states.

    Cause: ``@state`` is used in a way that it does not allow, two states have the same name, states are each
    other's parents, or an input matches no file. Remedy: correct the state that the message names.
    """


class UnknownState(StateError):
    """A test asks for a state that no ``@state`` function defines.

    Cause: the name is misspelt, or pytest does not import the module that defines the state. Remedy: use one of
    the states that the message lists, or define the state in a ``conftest.py`` or a test module.
    """


class StateFailed(StateError):
    """The function of a state, or ``pytest_vmsnap_prepare``, failed; ``__cause__`` is its error.

    Cause: the first test that fails with it shows the whole error. Remedy: correct the function;
    ``vmsnap open PARENT`` opens the state that it starts from.
    """


class StoreError(VmsnapError):
    """The store cannot be used, or not for what you asked; also the base of the other errors of the store.

    Cause: the message names it, for example a directory that cannot be written, or an entry that is in use.
    Remedy: follow the message.
    """


class StoreDamaged(StoreError):
    """A file in the store is not what was saved.

    Cause: something else wrote to the store, or the host's disk is faulty. Remedy: usually none, because a run
    rebuilds a damaged entry once; ``vmsnap verify --remove`` finds and removes all damaged entries.
    """


class StoreFull(StoreError):
    """There is no space in the store for an entry or a machine.

    Remedy: free space with ``vmsnap prune``, lower ``vmsnap_store_limit``, or choose another directory with
    ``vmsnap_store``.
    """


class StoreFormat(StoreError):
    """Another version of the plugin wrote the store, or the file that you import.

    Remedy: use that version, or choose another directory with ``vmsnap_store``.
    """


class RegistryError(StoreError):
    """A registry cannot be reached, refuses a request, or answers with what cannot be used.

    Cause: the message says what the registry answered. Remedy: check ``vmsnap_registry``, and log in with
    ``docker login`` or ``podman login`` if it asks for that. A run builds what it cannot pull.

    `is_lost` says whether the registry as a whole cannot be used.
    """

    def __init__(self, message: str, *, hint: str = "", is_lost: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.is_lost = is_lost


class RevertError(VmsnapError):
    """The plugin cannot give the test a clean machine.

    Cause: QEMU did not start or did not load the snapshot; the message shows what it printed. Remedy: free
    memory or disk space; if that does not help, rebuild the state with ``--vmsnap-refresh-state=NAME``.
    """


class RepairFailed(RevertError):
    """The clock or the random numbers of a clone could not be set right, or it is not clean; no test gets it.

    Cause: the guest did not answer in time or lacks a tool (``date``; perl or python3), or ``vmsnap_verify``
    found another machine's nonce in it. Remedy: follow the message; on a slow host, raise
    ``vmsnap_timeout_factor``.
    """


class ChannelError(VmsnapError):
    """Commands or data do not reach the guest; `console` is what the guest printed, `log` what QEMU printed.

    Cause: the message names it, for example a full disk in the guest during an upload. Remedy: depends on the
    cause; the next test gets a clean machine.
    """

    def __init__(self, message: str, *, hint: str = "", console: str = "", log: str = "") -> None:
        super().__init__(message, hint=hint)
        self.console = console
        self.log = log

    def __str__(self) -> str:
        return (
            super().__str__()
            + _block("last lines of the console", self.console)
            + _block("QEMU printed", qemu_output(self.log))
        )


class GuestHung(ChannelError):
    """QEMU runs, but the guest does not answer.

    Cause: the message says what the host can see: a kernel panic, stopped processors, or a stopped QEMU.
    Remedy: look at the console; ``--vmsnap-keep=failed`` keeps the machine.
    """


class GuestGone(ChannelError):
    """QEMU has ended, or the guest has shut down.

    Cause: the test powered the machine off, or QEMU died (the artifact ``vm-qemu.log`` says why).
    Remedy: boot a machine that is off with ``vm.start()``.
    """


class CommandError(VmsnapError):
    """A command did not end as the test expected; `result` is its `Result`."""

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
    """``vm.succeed`` ran a command that failed; `result` has its status and its output."""


class CommandSucceeded(CommandError, AssertionError):
    """``vm.fail`` ran a command that succeeded; `result` has its output."""


class CommandTimeout(CommandError, TimeoutError):
    """A command timed out; `result` has what it printed so far.

    The command is killed, except a process of ``vm.popen``, which keeps running. Remedy: pass a longer
    ``timeout=``, raise ``vmsnap_timeout``, or start a long-running command with ``vm.popen``.
    """


class OutputTooLong(CommandError):
    """A command printed more than the plugin keeps in memory, and was killed; `result` has what was kept.

    Remedy: write the output to a file with ``stdout=``, or raise ``vmsnap_output_limit``.
    """

    def __init__(self, message: str, *, result: Result, hint: str = "") -> None:
        super().__init__(message, result=result)
        self.hint = hint

    def __str__(self) -> str:
        blocks = [
            _block(f"{name} (first and last lines)", _ends(stream.decode(errors="replace")), 2 * EDGE_LINES + 1)
            for name, stream in (("stdout", self.result.stdout), ("stderr", self.result.stderr))
        ]
        return "\n".join(filter(None, [self.message, self.hint])) + "".join(blocks)


class WaitTimeout(VmsnapError, TimeoutError):
    """A wait timed out; `detail` is the last thing that it saw.

    Remedy: look at the detail; if the guest is only slow, pass a longer ``timeout=``.
    """

    def __init__(self, message: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(message, hint=hint)
        self.detail = detail

    def __str__(self) -> str:
        return super().__str__() + _block("last seen", self.detail, 40)


class SwitchGone(VmsnapError):
    """The switch of a cluster's private network has ended, so its machines do not reach each other.

    Cause: its process was killed, or the host ran out of memory. Remedy: revert the cluster, or run the test
    again; each cluster has its own switch.
    """


class MachineReleased(VmsnapError):
    """A test used a machine of a test that has ended, or a process from before a revert or a boot.

    Cause: the machine or the process was kept in a variable. Remedy: request ``vm`` in each test, or share a
    machine with ``vm_module``; start the process again after a revert or a boot.
    """


class PromiseBroken(VmsnapError, AssertionError):
    """A ``vm_readonly`` test changed its machine; `changes` has one line for each change.

    Remedy: remove the marker, or undo the change with ``vm.rollback``. The plugin only checks this with
    ``vmsnap_verify=audit``.
    """

    def __init__(self, message: str, *, hint: str = "", changes: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.changes = list(changes)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  {line}" for line in self.changes), *filter(None, [self.hint])])
