"""The connection to libvirt, and its event loop."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from copy import copy
from typing import TYPE_CHECKING, Any, TypeVar
from xml.etree import ElementTree

from pytest_vmsnap.errors import HostError, NoHypervisor
from pytest_vmsnap.host.domain_xml import QEMU_NAMESPACE
from pytest_vmsnap.host.libvirt import library
from pytest_vmsnap.host.libvirt.domain import Domain, Events

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from xml.etree.ElementTree import Element

T = TypeVar("T")

log = logging.getLogger("pytest_vmsnap.libvirt")

EMBEDDED = "qemu:///embed"
# libvirt 9 to 11 queries each CPU property of QEMU separately, about 400 queries and 0.25 s for each start.
# If told that QEMU lacks this capability, libvirt gets all in one answer (its qemuProcessFetchGuestCPU).
CPU_QUESTIONS = "cpu-unavailable-features"

_loop_started = threading.Lock()
_loop: threading.Thread | None = None


def _run_event_loop() -> None:
    libvirt, _ = library.modules()
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError as error:  # a connection was lost; keep serving the others
            log.debug("event loop: %s", error)


def _start_event_loop() -> None:
    """Start one daemon thread for the process; libvirt has no way to end its default loop."""
    global _loop  # one per process, like libvirt's loop
    library.modules()
    with _loop_started:
        if _loop is None:
            _loop = threading.Thread(target=_run_event_loop, name="vmsnap-libvirt-events", daemon=True)
            _loop.start()


class Connection:
    """A connection to libvirt's QEMU driver at `uri`.

    Raises `NoHypervisor` if libvirt does not answer there, or if the user may not connect.
    """

    def __init__(self, uri: str) -> None:
        libvirt, _ = library.modules()
        _start_event_loop()
        self.uri = uri
        try:
            self._handle = libvirt.open(uri)
        except libvirt.libvirtError as error:
            raise NoHypervisor(
                f"libvirt does not answer at {uri}: {error}", hint=_advice(uri, str(error))
            ) from error
        self._domains: dict[str, Domain] = {}
        self._of_others = Events()
        self._knows_cpu_questions: bool | None = None  # None: not tried yet
        self._handle.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle, None
        )
        self._handle.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, self._on_agent, None
        )
        self._handle.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_reboot, None)

    def _on_lifecycle(self, _conn: object, handle: Any, event: int, detail: int, _opaque: object) -> None:
        libvirt, _ = library.modules()
        log.debug("%s: lifecycle event %s, detail %s", handle.name(), event, detail)
        if (domain := self._domains.get(handle.UUIDString())) is None:
            self._of_others.wake()
            return
        if event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            domain.events.qemu_failed = detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED
            domain.events.stopped.set()
        domain.events.wake()

    def _on_agent(self, _conn: object, handle: Any, state: int, _reason: int, _opaque: object) -> None:
        libvirt, _ = library.modules()
        if (domain := self._domains.get(handle.UUIDString())) is None:
            return
        connected = state == libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED
        log.debug("%s: agent %s", handle.name(), "connected" if connected else "disconnected")
        domain.events.wake()

    def _on_reboot(self, _conn: object, handle: Any, _opaque: object) -> None:
        if domain := self._domains.get(handle.UUIDString()):
            log.debug("%s: reset", handle.name())
            domain.events.reboots += 1
            domain.events.wake()

    @property
    def library_version(self) -> str:
        """The version of the libvirt that runs the machines, e.g. ``11.3.0``."""
        return library.version_text(self._answer(self._handle.getLibVersion))

    def capabilities(self) -> Element:
        """The host's ``<capabilities>`` (libvirt, "Driver capabilities XML format")."""
        return ElementTree.fromstring(self._answer(self._handle.getCapabilities))  # noqa: S314 - libvirt's own

    def domain_capabilities(self, *, kind: str, machine: str) -> Element:
        """``<domainCapabilities>`` of a `kind` (``kvm`` or ``qemu``) on a `machine` type.

        Raises `NoHypervisor` if libvirt has no QEMU for it.
        """
        libvirt, _ = library.modules()
        try:
            text = self._handle.getDomainCapabilities(None, "x86_64", machine, kind, 0)
        except libvirt.libvirtError as error:
            raise NoHypervisor(
                f"libvirt at {self.uri} finds no QEMU that emulates x86_64: {error}", hint=library.INSTALL
            ) from error
        return ElementTree.fromstring(text)  # noqa: S314 - libvirt's own

    def _answer(self, question: Callable[[], T]) -> T:
        """Return libvirt's answer; raises `HostError` if it does not answer, e.g. because its daemon ended."""
        libvirt, _ = library.modules()
        try:
            return question()
        except libvirt.libvirtError as error:
            raise HostError(
                f"libvirt at {self.uri} stopped answering: {error}",
                hint="check that its daemon runs, and run the tests again",
            ) from error

    def create(
        self,
        description: Element,
        *,
        console: Path,
        serial: Path,
        ports: Mapping[str, Path],
        paused: bool = False,
    ) -> Domain:
        """Start a transient domain that ends with this connection.

        `console` is the file that records its serial console, `serial` that console's socket, `ports` are the
        sockets of its virtio-serial ports by name; `paused` leaves its processors stopped.
        Raises `HostError` with libvirt's message if it does not start.
        """
        libvirt, _ = library.modules()
        flags = 0
        if not self.uri.startswith(EMBEDDED):  # "autodestroy not supported for embedded drivers yet" (9.0)
            flags |= libvirt.VIR_DOMAIN_START_AUTODESTROY
        if paused:
            flags |= libvirt.VIR_DOMAIN_START_PAUSED
        uuid = description.findtext("uuid") or ""
        name = description.findtext("name") or ""
        domain = Domain(name=name, uuid=uuid, console=console, serial=serial, ports=ports)
        self._domains[uuid] = domain  # before it starts: its first events arrive during createXML
        try:
            domain.handle = self._create(description, flags)
        except BaseException as error:
            del self._domains[uuid]
            if not isinstance(error, libvirt.libvirtError):  # Ctrl-C may arrive after it has started
                self._end_started(uuid)
                raise
            raise HostError(
                f"libvirt could not start a machine: {error}", hint=_start_advice(str(error))
            ) from error
        return domain

    def cpu_models(self) -> list[str]:
        """The names of the processors that libvirt knows for x86_64 (virsh(1), ``cpu-models``)."""
        return sorted(self._answer(lambda: self._handle.getCPUModelNames("x86_64")))

    def _end_started(self, uuid: str) -> None:
        libvirt, _ = library.modules()
        try:
            self._handle.lookupByUUIDString(uuid).destroy()
        except libvirt.libvirtError as error:
            log.debug("%s: %s", uuid, error)

    def _create(self, description: Element, flags: int) -> Any:
        libvirt, _ = library.modules()
        if self._knows_cpu_questions is not False:
            try:
                created = self._handle.createXML(_described(description, without=CPU_QUESTIONS), flags)
            except libvirt.libvirtError as error:
                if self._knows_cpu_questions:
                    raise
                log.debug("once more, without %s: %s", CPU_QUESTIONS, error)
            else:
                self._knows_cpu_questions = True
                return created
        created = self._handle.createXML(_described(description), flags)
        self._knows_cpu_questions = False
        return created

    def wait_for_end(self, prefix: str, *, timeout: float) -> None:
        """Wait until no domain whose name begins with `prefix` is left, for at most `timeout` seconds.

        Raises `HostError` if libvirt does not answer.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not any(found.name().startswith(prefix) for found in self._answer(self._handle.listAllDomains)):
                return
            self._of_others.wait(0.2)  # short: the event may have come before the wait

    def forget(self, domain: Domain) -> None:
        """Stop following the events of a domain that has ended."""
        self._domains.pop(domain.uuid, None)

    def close(self) -> None:
        """End the machines that are left, and close the connection."""
        with ExitStack() as steps:  # each step runs, even if another raises
            steps.callback(self._disconnect)
            for domain in list(self._domains.values()):
                steps.callback(domain.destroy)

    def _disconnect(self) -> None:
        libvirt, _ = library.modules()
        try:
            self._handle.close()
        except libvirt.libvirtError as error:
            log.debug("close: %s", error)


def _described(description: Element, *, without: str = "") -> str:
    """The description as text, `without` a capability that libvirt must not use (libvirt, "QEMU driver")."""
    if not without:
        return ElementTree.tostring(description, encoding="unicode")
    changed = copy(description)  # its children are shared
    capabilities = ElementTree.SubElement(changed, f"{{{QEMU_NAMESPACE}}}capabilities")
    ElementTree.SubElement(capabilities, f"{{{QEMU_NAMESPACE}}}del", capability=without)
    return ElementTree.tostring(changed, encoding="unicode")


def _advice(uri: str, message: str) -> str:
    if "already open with path" in message:  # a process has one driver, in one directory, for good
        return (
            "another pytest session in this process uses libvirt, or has used it: start each in a process of "
            "its own (pytester's runpytest_subprocess), or use vmsnap_uri=qemu:///session"
        )
    if "too long for unix socket" in message:  # 108 bytes, unix(7)
        return "set XDG_RUNTIME_DIR to a short directory of your own, as a login does (/run/user/UID)"
    if uri.startswith("qemu:///system"):
        return (
            "start its daemon (sudo systemctl start libvirtd, or virtqemud) and join its group "
            "(sudo usermod -aG libvirt $USER, then log in again), or use vmsnap_uri=qemu:///session\n"
            + library.INSTALL
        )
    return library.INSTALL


def _start_advice(message: str) -> str:
    if "CPU" in message and ("incompatible" in message or "not compatible" in message or "features" in message):
        return "the host's processor cannot be the one of vmsnap_cpu: choose an older one, or host"
    if "memory" in message and "allocate" in message:
        return "the host has too little memory for the machine: lower vmsnap_memory, or free some memory"
    if "Permission denied" in message:
        return "the user that QEMU runs as cannot reach a file: see the path above, and vmsnap_store"
    return ""
