"""The other ways to a machine as it was: each on a machine like the plugin's, with ordinary memory."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import libvirt
import libvirt_qemu

from pytest_vmsnap.errors import ChannelError
from pytest_vmsnap.fork import DomainFactory, Template
from pytest_vmsnap.guest import Request, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from pytest_vmsnap.guest import Channel
    from pytest_vmsnap.host import Domain
    from pytest_vmsnap.model import MachineSpec
    from pytest_vmsnap.session import VmsnapSession

SECONDS = 600.0
QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}commandline"


def ordinary_memory(domain: Element, spec: MachineSpec) -> None:
    """Take away the file that is the machine's memory."""
    line = domain.find(QEMU)
    assert line is not None
    arguments = list(line)
    for first, second in zip(arguments[::2], arguments[1::2], strict=True):
        value = second.get("value", "")
        if "memory-backend" in value and "ram0" in value:
            line.remove(first)
            line.remove(second)


def by_agent(domain: Domain) -> None:
    """The guest agent's answer to a command, as soon as there is one."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            started = domain.agent("guest-exec", path="/bin/sh", arg=["-c", "true"], timeout=5)
            while not domain.agent("guest-exec-status", pid=started["pid"], timeout=5)["exited"]:
                pass
        except ChannelError:
            assert time.monotonic() < deadline
        else:
            return


class Peer:
    """A machine of `template`, and the `channel` of ours to it, for the second figure."""

    def __init__(self, template: Template, channel: Channel) -> None:
        self.template = template
        self.channel = channel
        self._xml = template.domain.handle.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)
        self._connection = template.domain.handle.connect()
        self._disk = template.disks[0]

    @property
    def domain(self) -> Domain:
        return self.template.domain

    def _monitor(self, line: str) -> None:
        said = libvirt_qemu.qemuMonitorCommand(
            self.domain.handle, line, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
        )
        assert not said.strip(), said

    def savevm(self) -> None:
        self._monitor("savevm bench")

    def loadvm(self) -> None:
        self._monitor("loadvm bench")

    def snapshot(self) -> None:
        self._snapshot = self.domain.handle.snapshotCreateXML(
            "<domainsnapshot><name>known</name></domainsnapshot>"
        )

    def revert(self) -> None:
        self.domain.handle.revertToSnapshot(self._snapshot)

    def save(self) -> None:
        """To a file, the disk of that moment kept beside it."""
        self._file = self._disk.with_name("saved")
        self.domain.handle.save(str(self._file))
        self._frozen = self._disk.rename(self._disk.with_name("frozen.qcow2"))

    def restore(self) -> None:
        self._end()
        self._overlay(self._frozen)
        self._connection.restore(str(self._file))
        self._found()

    def reboot(self) -> None:
        self._end()
        self._overlay(self._frozen)
        self._connection.createXML(self._xml)
        self._found()

    def _end(self) -> None:
        self.channel.close()
        try:
            self.domain.handle.destroy()
        except libvirt.libvirtError:  # a save ends it
            return

    def _overlay(self, backing: Path) -> None:
        self._disk.unlink(missing_ok=True)
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", "qcow2", self._disk]
        subprocess.run(command, check=True)

    def _found(self) -> None:
        self.domain.events.stopped.clear()
        self.domain.handle = self._connection.lookupByUUIDString(self.domain.uuid)


@contextmanager
def peer(vmsnap: VmsnapSession, spec: MachineSpec, fill: str) -> Iterator[Peer]:
    """Booted, and filled as the plugin's machines are."""
    host = vmsnap._engine.host
    assert host
    assert vmsnap._engine
    image = vmsnap._engine.library.found[spec, "base"].image
    factory = DomainFactory(
        host=host,
        root=vmsnap.settings.root,
        customize=ordinary_memory,
        ports=vmsnap._engine.channel_factory.ports,
    )
    with Template(factory, spec=spec, image=image) as template:
        assert "memory-backend" not in json.dumps(template.domain.xml())
        with closing(vmsnap._engine.channel_factory.channel_to(template, image)) as channel:
            channel.open(timeout=SECONDS)
            settle(channel, template.domain, timeout=SECONDS)
            assert channel.run(Request(text=fill or "true"), timeout=SECONDS).status == 0
            by_agent(template.domain)
            yield Peer(template, channel)


def timed(call: Callable[[], None], answer: Callable[[], None], times: int) -> list[float]:
    """Seconds from the call to the guest's answer, `times` times."""
    found = []
    for _ in range(times):
        started = time.monotonic()
        call()
        answer()
        found.append(time.monotonic() - started)
    return found
