"""A machine made from a snapshot, sharing its memory file copy-on-write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError, RevertError
from pytest_vmsnap.fork import files, migration
from pytest_vmsnap.host import Memory, netdev_of

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.fork.forge import Forge
    from pytest_vmsnap.fork.snapshot import Snapshot
    from pytest_vmsnap.host import Domain

LOAD_SECONDS = 60.0


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
        try:
            snapshot.memory.expect_untouched()
            self._disks = forge.overlays(snapshot.disks, self.directory)
            self.domain = self._start(self._memory_of_snapshot(), incoming=True)
            migration.load_devices(
                self.domain, snapshot.devices, abilities=snapshot.abilities, timeout=LOAD_SECONDS
            )
        except HostError as error:
            self.end()
            raise RevertError(f"a clean machine could not be made: {error.message}", hint=error.hint) from error
        except BaseException:
            self.end()
            raise

    def _memory_of_snapshot(self) -> Memory:
        sealed = self.snapshot.abilities.sealed_memory
        return Memory(path=self.snapshot.memory.path, share=False, sealed=sealed)

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
        )

    def boot(self) -> None:
        """Start it anew after it ended: a new QEMU with empty memory on the same disks.

        Its memory is a private mapping too, of an empty file, so that it can be saved like any other.
        """
        self._forge.host.connection.forget(self.domain)
        memory = self.directory / "empty-ram"
        if not memory.exists():
            self._forge.memory(self.directory, self.snapshot.spec.memory).rename(memory)
        self.domain = self._start(Memory(path=memory, share=False), incoming=False)

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

    def end(self) -> None:
        """End it and remove its files. Takes up to 2 s where process 1 reaps slowly."""
        if hasattr(self, "domain"):
            self._forge.end(self.domain)
        files.remove(self.directory)
