"""The machine that boots for the base state, and its save."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from pytest_vmsnap.errors import BootError, HostError
from pytest_vmsnap.fork import files, migration
from pytest_vmsnap.fork.memory import FullMemory
from pytest_vmsnap.fork.snapshot import Snapshot
from pytest_vmsnap.host import Memory, abilities_of, netdev_of
from pytest_vmsnap.store import fingerprint

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from pytest_vmsnap.fork.forge import Forge, Seed
    from pytest_vmsnap.host import Domain
    from pytest_vmsnap.model import GuestNotes, Image, MachineSpec

SAVE_SECONDS = 60.0


class Template:
    """A machine that boots, is prepared, and is saved once; it ends with the ``with`` block.

    Its memory is a file that it shares, so that a save has only device state to write. `seed` writes the image
    of a further disk, which comes after all others. What is saved is made in the directory `into`, None for one
    of its own, which stays. Raises `BootError`, with the console, where QEMU does not start.
    """

    domain: Domain

    def __init__(
        self,
        forge: Forge,
        *,
        spec: MachineSpec,
        image: Image,
        seed: Seed | None = None,
        into: Path | None = None,
    ) -> None:
        self._forge = forge
        self._seed = seed
        self.spec = spec
        self.image = image
        self.name = forge.host.run.domain_name("template")
        self.directory: Path = forge.directory(self.name)
        self.consoles: list[Path] = []
        self._into = into or self.directory

    def __enter__(self) -> Self:
        try:
            self._forge.to_write_in(self._into)
            self.disks = self._forge.first_disks(self.spec, self.image, self._into, self._seed)
            self.memory = self._forge.memory(self._into, self.spec.memory)
            self.boot()
        except HostError as error:
            self._end()
            raise BootError(error.message, hint=error.hint) from error
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(keep=kind is None and self._into == self.directory)

    def _end(self, *, keep: bool = False) -> None:
        with ExitStack() as steps:  # each is taken, whatever another raises
            if not keep:
                steps.callback(files.remove, self.directory)
            if hasattr(self, "domain"):
                steps.callback(self._forge.end, self.domain)

    def boot(self) -> None:
        """Start QEMU on its disks: the first time, and again after it ended."""
        if self.consoles:
            self._forge.end(self.domain)
        console = self.directory / f"console{len(self.consoles)}"
        self.consoles.append(console)
        self.domain = self._forge.start(
            name=self._forge.host.run.domain_name("template") if len(self.consoles) > 1 else self.name,
            spec=self.spec,
            image=self.image,
            disks=self.disks,
            memory=Memory(path=self.memory, share=True),
            console=console,
        )

    @property
    def address(self) -> str:
        """The host's loopback address that its ports are forwarded to."""
        return self._forge.address_of(self.name)

    @property
    def netdev(self) -> str:
        """QEMU's name of its network backend, empty without one."""
        return netdev_of(self.spec.network)

    @property
    def has_screen(self) -> bool:
        """Whether it has a display."""
        return self.spec.screen

    def scratch(self, name: str) -> Path:
        """A path for a file that QEMU may write, and that ends with the machine."""
        return self.directory / name

    def cut_power(self) -> None:
        """End its QEMU at once; its disks stay as they are."""
        self.domain.destroy()

    def log(self) -> str:
        """What QEMU printed."""
        return self._forge.log_of(self.domain)

    def save(self, *, guest: GuestNotes) -> Snapshot:
        """Stop the machine where it is, write its device state, end it; its files are the snapshot."""
        devices = self._into / "device-state"
        devices.touch(mode=0o600)
        self._forge.host.access.to_write(devices)
        abilities = abilities_of(self.domain.qmp)
        self.domain.suspend()
        migration.save_devices(
            self.domain, devices, abilities=abilities, timeout=self._forge.scaled(SAVE_SECONDS)
        )
        self._forge.end(self.domain)
        for path in (*self.disks, devices):
            path.chmod(self._forge.read_only)
        if abilities.sealed_memory:  # QEMU 7.2 opens it for writing even where the mapping is private
            self.memory.chmod(self._forge.read_only)
        return Snapshot(
            directory=self._into,
            spec=self.spec,
            image=self.image,
            disks=self.disks,
            memory=FullMemory(fingerprint=fingerprint(self.memory)),
            devices=devices,
            abilities=abilities,
            guest=guest,
        )
