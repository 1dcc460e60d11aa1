"""A machine made from a snapshot; it shares the snapshot's memory file copy-on-write."""

from __future__ import annotations

import logging
import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ChannelError, HostError, RevertError, StoreFull
from pytest_vmsnap.fork import files, live_save, migration
from pytest_vmsnap.fork.changed_pages import ChangedPages
from pytest_vmsnap.fork.memory import LayeredMemory, filled_in
from pytest_vmsnap.fork.snapshot import Snapshot, drives_of
from pytest_vmsnap.host import MORE_ROOM, Memory, netdev_of

if TYPE_CHECKING:
    from pytest_vmsnap.fork.domain_factory import DomainFactory
    from pytest_vmsnap.fork.memory import Provide, SavedMemory
    from pytest_vmsnap.host import Domain, LanPort
    from pytest_vmsnap.model import GuestNotes

log = logging.getLogger("pytest_vmsnap.fork")

LOAD_SECONDS = 60.0
SPARE_MIB = 64  # what the new overlays may need right away
# the device state of a live save has no configuration section (QEMU, migration/savevm.c)
BARE_DEVICES = ("-global", "migration.send-configuration=off")


class Clone:
    """A machine in the state of `snapshot`, paused until you resume its `domain`; `end` removes it.

    With `lan`, it is on a cluster's private network; if the snapshot has no card for that, it gets one. Raises
    `RevertError` if it cannot be made, `StoreDamaged` if the snapshot is not what was saved, `StoreFull` if
    there is no space for the snapshot's memory file.
    """

    domain: Domain

    def __init__(self, factory: DomainFactory, snapshot: Snapshot, *, lan: LanPort | None = None) -> None:
        self._factory = factory
        self.snapshot = snapshot
        self._lan = lan
        self.name = factory.host.run.domain_name("vm")
        self.directory: Path = factory.directory(self.name)
        self.consoles: list[Path] = []
        self._layers = 0
        try:
            self._mapped: SavedMemory | None = snapshot.memory
            mapped, layers = snapshot.memory.mapping()
            self._memory = factory.mappable(mapped.file().path)
            devices = snapshot.devices
            if layers and isinstance(snapshot.memory, LayeredMemory):
                pages = ChangedPages(size=snapshot.memory.size, mapped=self._memory, layers=layers)
                stream = snapshot.memory.stream(
                    devices, pages, lambda: factory.directory(f"{self.name}-stream")
                )
                devices = factory.mappable(stream)
            self._disks = factory.overlays(snapshot.disks, self.directory)
            memory = Memory(path=self._memory, share=False, sealed=snapshot.capabilities.sealed_memory)
            self.domain = self._start(memory, incoming=True)
            migration.load_devices(
                self.domain,
                devices,
                capabilities=snapshot.capabilities,
                timeout=factory.scaled(LOAD_SECONDS),
            )
            if lan and not snapshot.has_lan:
                self.domain.qmp("netdev_add", lan.netdev)
                self.domain.qmp("device_add", lan.device(snapshot.image.firmware))
        except (HostError, ChannelError) as error:  # QEMU may end while it loads
            self.end()
            raise RevertError(f"cannot make a clean machine: {error.message}", hint=error.hint) from error
        except BaseException:
            self.end()
            raise

    def _start(self, memory: Memory, *, incoming: bool) -> Domain:
        console = self.directory / f"console{len(self.consoles)}"
        self.consoles.append(console)
        arguments: tuple[str, ...] = BARE_DEVICES if incoming and self.snapshot.bare_devices else ()
        if self._lan and (self.snapshot.has_lan or not incoming):
            arguments += self._lan.arguments(self.snapshot.image.firmware)
        return self._factory.start(
            name=self._factory.host.run.domain_name("vm") if len(self.consoles) > 1 else self.name,
            spec=self.snapshot.spec,
            image=self.snapshot.image,
            disks=self._disks,
            memory=memory,
            console=console,
            incoming=incoming,
            extra_arguments=arguments,
        )

    def boot(self) -> None:
        """Boot it again after it ended: a new QEMU with empty memory on the same disks.

        Its memory is again a private mapping, of an empty file, so it can be saved like any other.
        """
        self._factory.forget(self.domain)
        self._mapped, self._memory = None, self.directory / "empty-ram"
        if not self._memory.exists():
            self._factory.memory(self.directory, self.snapshot.spec.memory).rename(self._memory)
        self.domain = self._start(Memory(path=self._memory, share=False), incoming=False)

    @property
    def address(self) -> str:
        """The host's loopback address on which its forwarded ports listen."""
        return self._factory.address_of(self.name)

    @property
    def netdev(self) -> str:
        """QEMU's name for its network backend, empty without a network."""
        return netdev_of(self.snapshot.spec.network)

    @property
    def has_screen(self) -> bool:
        """Whether it has a display."""
        return self.snapshot.spec.screen

    def scratch(self, name: str) -> Path:
        """A path for a file that QEMU may write; the file is removed with the machine."""
        return self.directory / name

    def cut_power(self) -> None:
        """End its QEMU at once; its disks stay as they are."""
        self.domain.destroy()

    def log(self) -> str:
        """What QEMU printed."""
        return self._factory.log_of(self.domain)

    def save(self, directory: Path, *, guest: GuestNotes, provide: Provide | None = None) -> Snapshot:
        """Save it as it is into `directory`; afterwards it continues as before.

        The snapshot holds what changed since the snapshot that it was made from. Its memory file is built when
        it is first needed, in a directory from `provide`; None means `directory` itself.

        Raises `StoreFull` if there is no space, `GuestGone` if QEMU ends meanwhile, `HostError` with QEMU's
        words or with the name of the RAM block that cannot be saved.
        """
        space = files.free_mib(directory)
        pages = self._factory.writable_directory(directory / "pages")
        provide, mode = provide or filled_in(directory), self._factory.read_only
        ran = self.domain.condition() == "running"
        if ran:
            self.domain.suspend()
        began = time.monotonic()
        try:
            size = self.snapshot.spec.memory << 20
            blocks = live_save.extra_blocks(self.domain)
            ranges, trouble = live_save.ranges_to_save(self.domain, self._memory, size)
            if trouble:
                self._factory.say_once(
                    "saving all of a machine's memory, not only what changed, because the pages of its QEMU "
                    f"cannot be read in /proc ({trouble})"
                )
            needed = (sum(run.length for run in ranges) + sum(block.used for block in blocks)) >> 20
            if needed + SPARE_MIB > space:
                raise StoreFull(
                    f"not enough space in {directory} for a snapshot of {needed} MiB, and {SPARE_MIB} MiB for "
                    f"the machine to continue ({space} MiB free)",
                    hint=MORE_ROOM,
                )
            live_save.save_memory(
                self.domain, ranges, pages, size, memory=self._memory, place=self._factory.allow_write
            )
            devices = directory / "device-state"
            live_save.save_devices(self.domain, devices, blocks, place=self._factory.allow_write)
            disks = self._disks_saved(directory)  # last: from here on its disks depend on the saved ones
        finally:
            if ran:
                try:
                    self.domain.resume()
                except (HostError, OSError):  # the test goes on with it
                    log.exception("%s could not be resumed, and is tried again", self.name)
                    self.domain.resume()
        log.info("%s: %d MiB saved, stood still for %.3f s", self.name, needed, time.monotonic() - began)
        for path in (*disks, devices):
            path.chmod(mode)
        return Snapshot(
            directory=directory,
            spec=self.snapshot.spec,
            image=self.snapshot.image,
            disks=disks,
            memory=LayeredMemory(
                below=None if trouble else self._mapped,
                layers=(pages,),
                size=size,
                provide=provide,
                loads=self._lan is not None,
            ),
            devices=devices,
            capabilities=self.snapshot.capabilities,
            guest=guest,
            bare_devices=True,
            has_lan=self._lan is not None,
        )

    def _disks_saved(self, directory: Path) -> tuple[Path, ...]:
        """Freeze its disks as they are, linked into `directory`, and give it overlays on them.

        Its UEFI variables, which are small, are copied instead: QEMU wrote all of them to their file when it
        stopped the guest.
        """
        saved = []
        drives = drives_of(self._disks, self.snapshot.image)
        for number, path in enumerate(drives):
            saved.append(directory / f"disk{number}.qcow2")
            os.link(path, saved[-1])  # the original name is removed with the machine
        variables = self._disks[len(drives) :]
        copies = tuple(Path(shutil.copyfile(path, directory / path.name)) for path in variables)
        for copy in copies:
            self._factory.host.permissions.allow_read(copy)
        self._layers += 1
        layer = self._factory.writable_directory(self.directory / f"layer{self._layers}")
        overlays = self._factory.overlays(tuple(saved), layer)
        self.domain.switch_to_overlays(overlays)
        self._disks = overlays + variables  # not before: if something above fails, it keeps its old disks
        return (*saved, *copies)

    def end(self) -> None:
        """End it and remove its files. Takes up to 2 s if process 1 reaps slowly."""
        with ExitStack() as steps:  # each step runs, even if another raises
            steps.callback(files.remove, self.directory)
            if hasattr(self, "domain"):
                steps.callback(self._factory.end, self.domain)
