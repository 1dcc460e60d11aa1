"""A machine made from a snapshot, sharing its memory file copy-on-write."""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ChannelError, HostError, RevertError, StoreFull
from pytest_vmsnap.fork import files, migration, running
from pytest_vmsnap.fork.memory import LayeredMemory, filled_in
from pytest_vmsnap.fork.snapshot import Snapshot
from pytest_vmsnap.host import MORE_ROOM, Memory, netdev_of

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.fork.forge import Forge
    from pytest_vmsnap.fork.memory import Provide, SavedMemory
    from pytest_vmsnap.host import Domain
    from pytest_vmsnap.model import GuestNotes

log = logging.getLogger("pytest_vmsnap.fork")

LOAD_SECONDS = 60.0
SPARE_MIB = 64  # what the new overlays may need at once
# what was saved while it ran has no configuration section (QEMU, migration/savevm.c)
BARE_DEVICES = ("-global", "migration.send-configuration=off")


class Clone:
    """A machine in the state of `snapshot`, paused until its `domain` is resumed; `end` removes it.

    Raises `RevertError` where it cannot be made, `StoreDamaged` where the snapshot is not what was saved.
    """

    domain: Domain

    def __init__(self, forge: Forge, snapshot: Snapshot) -> None:
        self._forge = forge
        self.snapshot = snapshot
        self.name = forge.host.run.domain_name("vm")
        self.directory: Path = forge.directory(self.name)
        self.consoles: list[Path] = []
        self._layers = 0
        try:
            self._mapped: SavedMemory | None = snapshot.memory
            self._memory = forge.to_map(snapshot.memory.file().path)
            self._disks = forge.overlays(snapshot.disks, self.directory)
            memory = Memory(path=self._memory, share=False, sealed=snapshot.abilities.sealed_memory)
            self.domain = self._start(memory, incoming=True)
            migration.load_devices(
                self.domain, snapshot.devices, abilities=snapshot.abilities, timeout=forge.scaled(LOAD_SECONDS)
            )
        except (HostError, ChannelError) as error:  # QEMU may end while it loads
            self.end()
            raise RevertError(f"a clean machine could not be made: {error.message}", hint=error.hint) from error
        except BaseException:
            self.end()
            raise

    def _start(self, memory: Memory, *, incoming: bool) -> Domain:
        console = self.directory / f"console{len(self.consoles)}"
        self.consoles.append(console)
        return self._forge.start(
            name=self._forge.host.run.domain_name("vm") if len(self.consoles) > 1 else self.name,
            spec=self.snapshot.spec,
            image=self.snapshot.image,
            disks=self._disks,
            memory=memory,
            console=console,
            incoming=incoming,
            extra_arguments=BARE_DEVICES if incoming and self.snapshot.bare_devices else (),
        )

    def boot(self) -> None:
        """Start it anew after it ended: a new QEMU with empty memory on the same disks.

        Its memory is a private mapping too, of an empty file, so that it can be saved like any other.
        """
        self._forge.host.connection.forget(self.domain)
        self._mapped, self._memory = None, self.directory / "empty-ram"
        if not self._memory.exists():
            self._forge.memory(self.directory, self.snapshot.spec.memory).rename(self._memory)
        self.domain = self._start(Memory(path=self._memory, share=False), incoming=False)

    @property
    def address(self) -> str:
        """The host's loopback address that its ports are forwarded to."""
        return self._forge.address_of(self.name)

    @property
    def netdev(self) -> str:
        """QEMU's name of its network backend, empty without one."""
        return netdev_of(self.snapshot.spec.network)

    @property
    def has_screen(self) -> bool:
        """Whether it has a display."""
        return self.snapshot.spec.screen

    def scratch(self, name: str) -> Path:
        """A path for a file that QEMU may write, and that ends with the machine."""
        return self.directory / name

    def cut_power(self) -> None:
        """End its QEMU at once; its disks stay as they are."""
        self.domain.destroy()

    def log(self) -> str:
        """What QEMU printed."""
        return self._forge.log_of(self.domain)

    def save(self, directory: Path, *, guest: GuestNotes, provide: Provide | None = None) -> Snapshot:
        """Save it as it is, in `directory`, and let it go on as if nothing had been.

        What is kept is what changed since the snapshot that it was made from. Its memory file is made when it
        is first wanted, in a directory that `provide` gives, None for `directory` itself.

        Raises `StoreFull` where there is no space, `HostError` with QEMU's words, or that names the RAM block
        that cannot be saved.
        """
        space = files.free_mib(directory)
        pages = self._forge.to_write_in(directory / "pages")
        provide, mode = provide or filled_in(directory), self._forge.read_only
        ran = self.domain.condition() == "running"
        if ran:
            self.domain.suspend()
        began = time.monotonic()
        try:
            size = self.snapshot.spec.memory << 20
            blocks = running.other_blocks(self.domain)
            runs, trouble = running.runs_to_save(self.domain, self._memory, size)
            if trouble:
                self._forge.say_once(
                    "a machine is saved with all of its memory, not only what changed: the pages of its QEMU "
                    f"are not to be seen in /proc ({trouble})"
                )
            needed = (sum(run.length for run in runs) + sum(block.used for block in blocks)) >> 20
            if needed + SPARE_MIB > space:
                raise StoreFull(
                    f"a snapshot of {needed} MiB, and {SPARE_MIB} MiB to go on with, have no room in "
                    f"{directory} ({space} MiB free)",
                    hint=MORE_ROOM,
                )
            running.save_memory(self.domain, runs, pages, size, memory=self._memory, place=self._forge.to_write)
            devices = directory / "device-state"
            running.save_devices(self.domain, devices, blocks, place=self._forge.to_write)
            disks = self._disks_saved(directory)  # last: from then on it stands on what is saved
        finally:
            if ran:
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
            ),
            devices=devices,
            abilities=self.snapshot.abilities,
            guest=guest,
            bare_devices=True,
        )

    def _disks_saved(self, directory: Path) -> tuple[Path, ...]:
        """Freeze its disks as they are, linked into `directory`; it goes on with overlays on them."""
        saved = []
        for number, path in enumerate(self._disks):
            saved.append(directory / f"disk{number}.qcow2")
            os.link(path, saved[-1])  # its own name ends with the machine
        self._layers += 1
        layer = self._forge.to_write_in(self.directory / f"layer{self._layers}")
        overlays = self._forge.overlays(tuple(saved), layer)
        self.domain.change_disks(overlays)
        self._disks = overlays  # until here it goes on with those that it had
        return tuple(saved)

    def end(self) -> None:
        """End it and remove its files. Takes up to 2 s where process 1 reaps slowly."""
        with ExitStack() as steps:  # each is taken, whatever another raises
            steps.callback(files.remove, self.directory)
            if hasattr(self, "domain"):
                steps.callback(self._forge.end, self.domain)
