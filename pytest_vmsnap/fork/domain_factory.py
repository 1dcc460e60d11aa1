"""The domains of a run: their files, their descriptions, and how they start."""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from pytest_vmsnap.errors import HostError
from pytest_vmsnap.fork import files, qcow2
from pytest_vmsnap.fork.snapshot import drives_of
from pytest_vmsnap.host import DomainConfig, Flash, Memory, Tpm, describe, uefi_firmware

if TYPE_CHECKING:
    from collections.abc import Callable
    from xml.etree.ElementTree import Element

    from pytest_vmsnap.host import Domain, Host, UefiFirmware
    from pytest_vmsnap.model import Image, MachineSpec

    Customize = Callable[[Element, MachineSpec], None]
    Seed = Callable[[Path], None]

log = logging.getLogger("pytest_vmsnap.fork")

VARIABLES = "variables.qcow2"  # UEFI's
LOG_BYTES = 256 << 10  # from the end of QEMU's log


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainFactory:
    """Makes the domains of a run; `customize` may change the description of each before it is used.

    `ports` are the names of the virtio-serial ports that each has in addition to the guest agent's. `say` shows
    the user a line; `scaled` takes the seconds of a deadline and returns those to use on this host.
    """

    host: Host
    root: Path
    customize: Customize
    ports: tuple[str, ...] = ()
    say: Callable[[str], None] = log.warning
    scaled: Callable[[float], float] = float
    _said: set[str] = field(default_factory=set)
    _tpms: dict[str, Tpm] = field(default_factory=dict)

    def say_once(self, line: str) -> None:
        """Show `line` to the user, unless it has been shown before."""
        if line not in self._said:
            self._said.add(line)
            self.say(line)

    def directory(self, name: str) -> Path:
        """Create a directory for the files of the machine `name`, and let QEMU write in it."""
        path = self.host.run.data / name
        try:
            return self.writable_directory(path)
        except BaseException:
            files.remove(path)
            raise

    def writable_directory(self, path: Path) -> Path:
        """Create the directory `path` if it is missing, and let QEMU write in it."""
        path.mkdir(mode=0o700, exist_ok=True)
        self.host.allow_search_to(path)
        return self._given(path)

    def allow_write(self, path: Path) -> Path:
        """Let QEMU write the file `path`; if QEMU runs as another user, create the file if it is missing."""
        if self.host.permissions.user:
            path.touch(mode=0o600)
            self._given(path)
        return path

    def mappable(self, path: Path) -> Path:
        """Let QEMU map the memory file `path`: QEMU 7.2 opens it for writing even for a private mapping."""
        self.host.allow_search_to(path)
        return self._given(path)

    @property
    def read_only(self) -> int:
        """The mode of a file that QEMU reads and that must not change."""
        return 0o440 if self.host.permissions.user else 0o400

    def first_disks(
        self, spec: MachineSpec, image: Image, directory: Path, seed: Seed | None
    ) -> tuple[Path, ...]:
        """Create the disks of a machine that boots: overlays on the image and on prepared disks, empty disks.

        The modules of the user's kernel are a disk after those of `spec`.
        With `seed`, a disk is an overlay on the raw image that `seed` writes. With UEFI, the last disk is a
        copy of its variables.
        """
        disks = []
        if image.disk:
            backing = self.host.reachable(image.disk)
            disks.append(files.overlay(directory / "disk0.qcow2", backing=backing, backing_format=image.format))
        for number, disk in enumerate(spec.disks, start=1):
            path = directory / f"disk{number}.qcow2"
            if disk.source:
                source = self.host.reachable((self.root / Path(disk.source).expanduser()).resolve())
                files.overlay(path, backing=source, backing_format=files.format_of(source))
            else:
                files.empty_disk(path, size_mib=disk.size or 0)
            disks.append(path)
        if seed:
            backing = directory / "seed"
            seed(backing)
            self._given(backing)
            disks.append(files.overlay(directory / "seed.qcow2", backing=backing, backing_format="raw"))
        if image.modules:
            backing = self.host.reachable(image.modules)
            disks.append(files.overlay(directory / "modules.qcow2", backing=backing, backing_format="raw"))
        if image.firmware != "bios":
            template = self._uefi(image).variables
            disks.append(files.flatten(template.path, directory / VARIABLES, source_format=template.format))
        return tuple(self._given(path) for path in disks)

    def _uefi(self, image: Image) -> UefiFirmware:
        return uefi_firmware(image.firmware, self.host.machine_type(image.firmware))

    def firmware_digest(self, image: Image) -> str:
        """The digest of the UEFI firmware that boots `image`, empty with BIOS: part of a key."""
        return "" if image.firmware == "bios" else self._uefi(image).digest()

    def overlays(self, backings: tuple[Path, ...], directory: Path) -> tuple[Path, ...]:
        """Create an overlay in `directory` on each of `backings`, which are our own overlays too."""
        return tuple(
            self._given(qcow2.create_overlay(directory / backing.name, backing=backing)) for backing in backings
        )

    def memory(self, directory: Path, size_mib: int) -> Path:
        """Create a memory file of `size_mib` MiB; raises `StoreFull` if there is no space for it."""
        self.host.expect_space(size_mib)
        return self._given(files.create(directory / "ram", size=size_mib << 20))

    def _given(self, path: Path) -> Path:
        self.host.permissions.allow_write(path)
        return path

    def start(
        self,
        *,
        name: str,
        spec: MachineSpec,
        image: Image,
        disks: tuple[Path, ...],
        memory: Memory,
        console: Path,
        incoming: bool = False,
        extra_arguments: tuple[str, ...] = (),
    ) -> Domain:
        """Start a domain; with `incoming` it is paused and waits for a device state.

        QEMU gets `extra_arguments` in addition to libvirt's.
        """
        console.touch(mode=0o600)
        self._given(console)
        config = self._config(name, spec, image, disks, memory, console, incoming, extra_arguments)
        description = describe(config)
        self.customize(description, spec)
        with ExitStack() as failed:
            if config.tpm:
                self._tpms[name] = Tpm(console.parent / "tpm", config.tpm, self.host.permissions)
                failed.callback(self._kill_tpm, name)
            try:
                domain = self.host.connection.create(
                    description, console=console, serial=config.serial, ports=config.ports, paused=incoming
                )
            except HostError:
                if tpm := self._tpms.get(name):
                    tpm.expect_running()  # else QEMU only says that it cannot connect
                raise
            failed.pop_all()
        return domain

    def _kill_tpm(self, name: str) -> None:
        self._tpms.pop(name).kill()

    def normalized_xml(self, spec: MachineSpec, image: Image) -> str:
        """The XML of a machine of `spec` on `image`, without what differs between machines: part of a key."""
        disks = [
            Path(f"disk{number}") for number in range(bool(image.disk) + len(spec.disks) + bool(image.modules))
        ]
        if image.firmware != "bios":
            disks.append(Path(VARIABLES))
        memory = Memory(path=Path("ram"), share=True)
        config = self._config("any", spec, image, tuple(disks), memory, Path("console"), False, ())
        ports = dict.fromkeys(config.ports, Path("port"))
        config = replace(config, serial=Path("serial"), agent=Path("agent"), ports=ports)
        config = replace(config, tpm=config.tpm and Path("tpm"))
        # the image's key covers their content, and their paths may change: a store can be moved
        kernel, initrd = image.kernel and Path("kernel"), image.initrd and Path("initrd")
        description = describe(replace(config, image=replace(image, kernel=kernel, initrd=initrd)))
        self.customize(description, spec)
        for tag in ("uuid", "genid"):
            for element in description.findall(tag):
                element.text = "another in each"
        return ElementTree.tostring(description, encoding="unicode")

    def _config(
        self,
        name: str,
        spec: MachineSpec,
        image: Image,
        disks: tuple[Path, ...],
        memory: Memory,
        console: Path,
        incoming: bool,
        extra_arguments: tuple[str, ...],
    ) -> DomainConfig:
        facts, sockets = self.host.facts, self.host.run.sockets
        flash = None
        if image.firmware != "bios":
            firmware = self._uefi(image)
            self.host.reachable(firmware.code.path)
            flash = Flash(firmware=firmware, variables=disks[-1])
        return DomainConfig(
            name=name,
            kind=facts.kind,
            emulator=facts.emulator,
            machine_type=self.host.machine_type(image.firmware),
            cpu_model=facts.cpu_model,
            spec=spec,
            image=self._booted_directly(image),
            disks=drives_of(disks, image),
            flash=flash,
            memory=memory,
            console=console,
            serial=sockets / f"{name}.serial",
            agent=sockets / f"{name}.agent",
            tpm=sockets / f"{name}.tpm" if spec.tpm else None,
            ports={port: sockets / f"{name}.{number}" for number, port in enumerate(self.ports)},
            incoming=incoming,
            extra_arguments=extra_arguments,
            qemu_user=self.host.permissions.user,
            unconfined=self.host.unconfined,
        )

    def _booted_directly(self, image: Image) -> Image:
        kernel = self.host.reachable(image.kernel) if image.kernel else None
        initrd = self.host.reachable(image.initrd) if image.initrd else None
        return replace(image, kernel=kernel, initrd=initrd)

    def address_of(self, name: str) -> str:
        """A loopback address for the machine `name`, different for each: the host has all of 127.0.0.0/8."""
        a, b, c = hashlib.sha256(name.encode()).digest()[:3]
        return f"127.{64 + a % 64}.{b}.{1 + c % 254}"

    def log_of(self, domain: Domain) -> str:
        """The end of QEMU's log; empty if this user cannot read it."""
        try:
            with (self.host.log_directory / f"{domain.name}.log").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
                return file.read(LOG_BYTES).decode(errors="replace")
        except OSError:
            return ""

    def end(self, domain: Domain) -> None:
        """End a domain at once and remove its log. Takes up to 2 s if process 1 reaps slowly."""
        with ExitStack() as steps:  # each step runs, even if another raises
            steps.callback(self._remove_log, domain)
            steps.callback(self.forget, domain)
            steps.callback(domain.destroy)

    def forget(self, domain: Domain) -> None:
        """Release what belongs to a domain that has ended."""
        with ExitStack() as steps:  # each step runs, even if another raises
            if tpm := self._tpms.pop(domain.name, None):
                steps.callback(tpm.end)
            steps.callback(self.host.connection.forget, domain)

    def _remove_log(self, domain: Domain) -> None:
        with suppress(OSError):  # in system mode it belongs to another user
            (self.host.log_directory / f"{domain.name}.log").unlink()
