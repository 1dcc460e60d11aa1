"""A running domain: its monitor, its agent, its processors."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

from pytest_vmsnap.errors import ChannelError, GuestGone, GuestHung, HostError
from pytest_vmsnap.host.domain_xml import AGENT_PORT, snapshot_of_disks
from pytest_vmsnap.host.libvirt import library
from pytest_vmsnap.host.processes import is_stopped, qemu_of
from pytest_vmsnap.readable import last_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

log = logging.getLogger("pytest_vmsnap.libvirt")

CONSOLE_END = 64 << 10  # bytes
ENDING_SECONDS = 5.0  # until libvirt reports that QEMU has ended
LINE_BYTES = 4 << 10
PANIC = "Kernel panic - not syncing"  # Linux, kernel/panic.c
PANIC_BYTES = 256 << 10  # of the console's end, searched for a panic
Condition = Literal["running", "paused", "stopped"]


class Events:
    """The events of a domain that libvirt has reported; `wait` sleeps until the next one.

    `reboots` counts the guest's resets since the domain started (libvirt, ``VIR_DOMAIN_EVENT_ID_REBOOT``).
    `qemu_failed` tells, once `stopped` is set, whether QEMU ended without saying so: it crashed, or was killed
    (``VIR_DOMAIN_EVENT_STOPPED_FAILED``).
    """

    def __init__(self) -> None:
        self.reboots = 0
        self.qemu_failed = False
        self.stopped = threading.Event()
        self._changed = threading.Condition()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait(self, timeout: float) -> None:
        """Return at the next event, or after `timeout` seconds."""
        with self._changed:
            self._changed.wait(timeout)

    def wait_for_end(self) -> None:
        """Return when libvirt has reported QEMU's end, or after `ENDING_SECONDS`: its ports close before."""
        self.stopped.wait(ENDING_SECONDS)


class Domain:
    """A transient libvirt domain that this process started.

    `name` and `uuid` are libvirt's; `console` is the file that records its serial console, `serial` that
    console's socket; `ports` are the sockets of its virtio-serial ports by name; `handle` is libvirt's object.
    """

    handle: Any

    def __init__(self, *, name: str, uuid: str, console: Path, serial: Path, ports: Mapping[str, Path]) -> None:
        self.name = name
        self.uuid = uuid
        self.console = console
        self.serial = serial
        self.ports = ports
        self.events = Events()
        self.boot_mark = 0  # the byte of the console at which the current boot began
        self.watches: list[Callable[[], None]] = []  # called while waiting for an answer of the guest
        self._pid: int | None = None

    def condition(self) -> Condition:
        """Whether the domain runs, is paused, or has stopped."""
        libvirt, _ = library.modules()
        if self.events.stopped.is_set():
            return "stopped"
        try:
            state, _reason = self.handle.state()
        except libvirt.libvirtError:  # a transient domain disappears when it stops
            return "stopped"
        if state in (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED):
            return "stopped"
        return "paused" if state == libvirt.VIR_DOMAIN_PAUSED else "running"

    def stall_reason(self) -> str:
        """Why the guest can never answer, as text; empty if no reason can be seen."""
        condition = self.condition()
        if condition == "stopped":
            return "its QEMU has ended"
        if condition == "paused":
            return "its processors are paused"
        if (pid := self.pid()) and is_stopped(pid):
            return f"its QEMU (process {pid}) was stopped by a signal"
        if PANIC in self.console_end(PANIC_BYTES):
            return "the guest's kernel panicked"
        return ""

    def pid(self) -> int | None:
        """QEMU's process id, or None if the process cannot be found on this host."""
        if self._pid is None:
            self._pid = qemu_of(self.name)
        return self._pid

    def memory_mib(self) -> int:
        """The guest's memory in MiB; raises `GuestGone` if the domain has ended."""
        libvirt, _ = library.modules()
        try:
            return int(self.handle.maxMemory()) >> 10
        except libvirt.libvirtError as error:
            raise GuestGone(f"{self.name} has ended", console=self.console_text()) from error

    def xml(self) -> str:
        """libvirt's description of the running domain."""
        return str(self.handle.XMLDesc())

    def suspend(self) -> None:
        """Stop the processors. Raises `GuestGone` if the domain has ended, `HostError` if libvirt fails."""
        self._call("suspend", self.handle.suspend)

    def resume(self) -> None:
        """Start the processors. Raises `GuestGone` if the domain has ended, `HostError` if libvirt fails."""
        self._call("resume", self.handle.resume)

    def destroy(self) -> None:
        """End the domain at once; do nothing if it has ended. Takes up to 2 s if process 1 reaps slowly."""
        libvirt, _ = library.modules()
        try:
            self.handle.destroy()
        except libvirt.libvirtError as error:
            log.debug("%s: destroy: %s", self.name, error)
        self.events.stopped.set()  # the event itself may come later, or never
        self.events.wake()

    def switch_to_overlays(self, overlays: Sequence[Path]) -> None:
        """Switch the disks to `overlays`: empty overlays on the current files, one for each disk, in order.

        This is an external snapshot of the disks only, without metadata (libvirt, "Snapshot XML format").
        Raises `GuestGone` if the domain has ended, `HostError` if libvirt fails.
        """
        libvirt, _ = library.modules()
        flags = (
            libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
        )
        if overlays:
            text = ElementTree.tostring(snapshot_of_disks(overlays), encoding="unicode")
            self._call("snapshot the disks of", lambda: self.handle.snapshotCreateXML(text, flags))

    def _call(self, what: str, call: Callable[[], object]) -> None:
        libvirt, _ = library.modules()
        try:
            call()
        except libvirt.libvirtError as error:
            if self.condition() == "stopped":
                raise GuestGone(
                    f"{self.name} ended before libvirt could {what} it", console=self.console_text()
                ) from error
            raise HostError(f"libvirt could not {what} {self.name}: {error}") from error

    def qmp(
        self, command: str, dashed: Mapping[str, Any] | None = None, *, files: Sequence[int] = (), **named: Any
    ) -> Any:
        """Return QEMU's answer to a monitor command (QEMU, "QMP reference"); `files` are descriptors to pass.

        Arguments with a dash in their names go into `dashed`. Raises `GuestGone` if QEMU has ended, `HostError`
        with QEMU's message if it refuses the command.
        """
        libvirt, libvirt_qemu = library.modules()
        text = json.dumps({"execute": command, "arguments": {**(dashed or {}), **named}})
        try:
            if files:
                answer = libvirt_qemu.qemuMonitorCommandWithFiles(self.handle, text, list(files), 0)
                answer = answer[0] if isinstance(answer, tuple) else answer
            else:
                answer = libvirt_qemu.qemuMonitorCommand(self.handle, text, 0)
        except libvirt.libvirtError as error:
            if self.condition() == "stopped":
                raise GuestGone(f"QEMU of {self.name} has ended", console=self.console_text()) from error
            raise HostError(f"QEMU's monitor refused {command}: {error}") from error
        reply = json.loads(answer)
        if "error" in reply:
            raise HostError(f"QEMU refused {command}: {reply['error'].get('desc', reply['error'])}")
        return reply.get("return")

    def agent(self, command: str, *, timeout: float, **arguments: Any) -> Any:
        """Return the guest agent's answer to a command (QEMU, "QEMU Guest Agent protocol reference").

        `timeout` is in seconds, at least 1. Raises `GuestHung` if the agent does not answer within it,
        `GuestGone` if QEMU has ended, `ChannelError` with the agent's message if it refuses.
        """
        libvirt, libvirt_qemu = library.modules()
        text = json.dumps(
            {"execute": command, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}
        )
        try:
            answer = libvirt_qemu.qemuAgentCommand(self.handle, text, max(1, round(timeout)), 0)
        except libvirt.libvirtError as error:
            if self.condition() == "stopped":
                raise GuestGone(f"{self.name} has ended", console=self.console_text()) from error
            silent = (
                libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
                libvirt.VIR_ERR_AGENT_UNSYNCED,
                libvirt.VIR_ERR_OPERATION_TIMEOUT,
            )
            if error.get_error_code() in silent or self.condition() == "paused":
                raise GuestHung(
                    f"the guest agent of {self.name} does not answer: {error}", console=self.console_text()
                ) from error
            raise ChannelError(
                f"the guest agent refused {command}: {error}", console=self.console_text()
            ) from error
        return json.loads(answer).get("return")

    def agent_connected(self) -> bool:
        """Whether the guest has opened the agent's port (libvirt, "Domain XML format", channel state)."""
        libvirt, _ = library.modules()
        try:
            found = ElementTree.fromstring(self.xml())  # noqa: S314 - libvirt's own
        except libvirt.libvirtError:
            return False
        return any(
            target.get("name") == AGENT_PORT and target.get("state") == "connected"
            for target in found.iterfind("devices/channel/target")
        )

    def wait_for_agent(self, *, timeout: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait until the guest agent answers; `timeout` is in seconds. Call `meanwhile` between the attempts.

        Raises `GuestGone` as soon as the guest has ended, `GuestHung` at the timeout, `ChannelError`
        if the agent refuses.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.agent("guest-ping", timeout=min(5.0, max(1.0, deadline - time.monotonic())))
            except GuestHung:
                if time.monotonic() >= deadline:
                    raise GuestHung(
                        f"the guest agent of {self.name} did not answer within {timeout:.0f} s",
                        console=self.console_text(),
                    ) from None
                meanwhile()
                self.events.wait(0.5)  # an event says that the guest opened its end; a ping proves it
            else:
                return

    def console_text(self) -> str:
        """The last 64 KiB of the serial console, for messages."""
        return self._console(0, CONSOLE_END)

    def console_line(self) -> str:
        """The last line that the serial console shows of the current boot, for progress."""
        return last_line(self.console_end(LINE_BYTES))

    def console_end(self, size: int) -> str:
        """The output of the serial console since `boot_mark`, at most its last `size` bytes."""
        return self._console(self.boot_mark, size)

    def _console(self, start: int, size: int) -> str:
        try:
            with self.console.open("rb") as file:
                file.seek(max(start, file.seek(0, os.SEEK_END) - size))
                return file.read(size).decode(errors="replace")
        except OSError:
            return ""

    def mark_boot(self) -> None:
        """Note that a new boot begins: later output of the serial console belongs to it."""
        with suppress(OSError):
            self.boot_mark = self.console.stat().st_size
