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

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

log = logging.getLogger("pytest_vmsnap.libvirt")

CONSOLE_END = 64 << 10  # bytes
PANIC = "Kernel panic - not syncing"  # Linux, kernel/panic.c
PANIC_BYTES = 256 << 10  # of the console's end, in which a panic is looked for
Condition = Literal["running", "paused", "stopped"]


class Events:
    """What libvirt has told of a domain; `wait` sleeps until it tells more.

    `reboots` counts how often the guest was reset since the domain was started (libvirt,
    ``VIR_DOMAIN_EVENT_ID_REBOOT``).
    """

    def __init__(self) -> None:
        self.reboots = 0
        self.stopped = threading.Event()
        self._changed = threading.Condition()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait(self, timeout: float) -> None:
        """Return at the next event, or after `timeout` seconds."""
        with self._changed:
            self._changed.wait(timeout)


class Domain:
    """A transient libvirt domain that this process started.

    `name` and `uuid` are its own; `console` is the file that its serial console is recorded in, `serial` that
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
        self.boot_mark = 0  # the byte of the console at which the boot began that it is in
        self.watches: list[Callable[[], None]] = []  # called while an answer of its guest is waited for
        self._pid: int | None = None

    def condition(self) -> Condition:
        """Whether it runs, is paused, or has stopped."""
        libvirt, _ = library.modules()
        if self.events.stopped.is_set():
            return "stopped"
        try:
            state, _reason = self.handle.state()
        except libvirt.libvirtError:  # a transient domain is gone when it stops
            return "stopped"
        if state in (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED):
            return "stopped"
        return "paused" if state == libvirt.VIR_DOMAIN_PAUSED else "running"

    def trouble(self) -> str:
        """What keeps the guest from ever answering, in words; empty if nothing that can be seen."""
        condition = self.condition()
        if condition == "stopped":
            return "its QEMU has ended"
        if condition == "paused":
            return "its processors stand still"
        if (pid := self.pid()) and is_stopped(pid):
            return f"its QEMU (process {pid}) was stopped by a signal"
        if PANIC in self.console_end(PANIC_BYTES):
            return "the guest's kernel panicked"
        return ""

    def pid(self) -> int | None:
        """QEMU's process id, where the monitor's owner is on this host and can be found."""
        if self._pid is None:
            self._pid = qemu_of(self.name)
        return self._pid

    def memory_mib(self) -> int:
        """The guest's memory in MiB; raises `GuestGone` where it has ended."""
        libvirt, _ = library.modules()
        try:
            return int(self.handle.maxMemory()) >> 10
        except libvirt.libvirtError as error:
            raise GuestGone(f"{self.name} has ended", console=self.console_text()) from error

    def xml(self) -> str:
        """libvirt's description of the running domain."""
        return str(self.handle.XMLDesc())

    def suspend(self) -> None:
        """Stop its processors."""
        self._call("suspend", self.handle.suspend)

    def resume(self) -> None:
        """Let its processors run."""
        self._call("resume", self.handle.resume)

    def destroy(self) -> None:
        """End it at once; nothing happens if it has ended. Takes up to 2 s where process 1 reaps slowly."""
        libvirt, _ = library.modules()
        try:
            self.handle.destroy()
        except libvirt.libvirtError as error:
            log.debug("%s: destroy: %s", self.name, error)
        self.events.stopped.set()  # the event itself may come later, or to nobody
        self.events.wake()

    def change_disks(self, overlays: Sequence[Path]) -> None:
        """Go on with other files, which are empty overlays on the ones until now: one for each disk, in order.

        libvirt, "Snapshot XML format": an external snapshot of the disks alone, whose record nobody keeps.
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
                    f"{self.name} has ended, {what} came too late", console=self.console_text()
                ) from error
            raise HostError(f"libvirt could not {what} {self.name}: {error}") from error

    def qmp(
        self, command: str, dashed: Mapping[str, Any] | None = None, *, files: Sequence[int] = (), **named: Any
    ) -> Any:
        """QEMU's answer to a monitor command (QEMU, "QMP reference"); `files` are descriptors to pass along.

        Arguments whose names have a dash go by `dashed`. Raises `HostError` with QEMU's words, `GuestGone`
        where QEMU has ended.
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
        """The guest agent's answer to a command (QEMU, "QEMU Guest Agent protocol reference").

        `timeout` in seconds, at least 1. Raises `GuestHung` where the agent does not answer within it,
        `GuestGone` where QEMU has ended, `ChannelError` with the agent's words where it refuses.
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
        """Return when the guest agent answers; `timeout` in seconds. `meanwhile` is called now and then.

        Raises `GuestGone` as soon as the guest has ended, `GuestHung` at the time-out.
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
                self.events.wait(0.5)  # libvirt tells when the guest opens its end; a ping proves it
            else:
                return

    def console_text(self) -> str:
        """The end of what the serial console has shown: 64 KiB, for messages."""
        return self._console(0, CONSOLE_END)

    def console_end(self, size: int) -> str:
        """What the serial console has shown since `boot_mark`, at most the last `size` bytes of it."""
        return self._console(self.boot_mark, size)

    def _console(self, start: int, size: int) -> str:
        try:
            with self.console.open("rb") as file:
                file.seek(max(start, file.seek(0, os.SEEK_END) - size))
                return file.read(size).decode(errors="replace")
        except OSError:
            return ""

    def mark_boot(self) -> None:
        """What the serial console shows from now on is of another boot."""
        with suppress(OSError):
            self.boot_mark = self.console.stat().st_size
