"""The machine that boots for the base state, and how it is saved."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from pytest_vmsnap.errors import BootError, HostError
from pytest_vmsnap.fork import files, migration
from pytest_vmsnap.fork.memory import FullMemory
from pytest_vmsnap.fork.snapshot import Snapshot
from pytest_vmsnap.host import Memory, netdev_of, query_capabilities
from pytest_vmsnap.store import fingerprint

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from pytest_vmsnap.fork.domain_factory import DomainFactory, Seed
    from pytest_vmsnap.host import Domain
    from pytest_vmsnap.model import GuestNotes, Image, MachineSpec

SAVE_SECONDS = 60.0


class Template:
    """A machine that boots, is prepared, and is saved once; it ends with the ``with`` block.

    Its memory is a shared file, so a save writes only the device state. `seed` writes the image of one more
    disk, which comes after all others. The files of the snapshot are in the directory `into`; None means the
    template's own directory, which then stays. Raises `BootError` if QEMU does not start.
    """

    directory: Path
    domain: Domain

    def __init__(
        self,
        factory: DomainFactory,
        *,
        spec: MachineSpec,
        image: Image,
        seed: Seed | None = None,
        into: Path | None = None,
    ) -> None:
        self._factory = factory
        self._seed = seed
        self.spec = spec
        self.image = image
        self.name = factory.host.run.domain_name("template")
        self.consoles: list[Path] = []
        self._given = into

    def __enter__(self) -> Self:
        try:
            self.directory = self._factory.directory(self.name)
            self._into = self._factory.writable_directory(self._given or self.directory)
            self.disks = self._factory.first_disks(self.spec, self.image, self._into, self._seed)
            self.memory = self._factory.memory(self._into, self.spec.memory)
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
        with ExitStack() as steps:  # each step runs, even if another raises
            if not keep and hasattr(self, "directory"):
                steps.callback(files.remove, self.directory)
            if hasattr(self, "domain"):
                steps.callback(self._factory.end, self.domain)

    def boot(self) -> None:
        """Start QEMU on its disks, for the first time or again after it ended."""
        if self.consoles:
            self._factory.end(self.domain)
        console = self.directory / f"console{len(self.consoles)}"
        self.consoles.append(console)
        self.domain = self._factory.start(
            name=self._factory.host.run.domain_name("template") if len(self.consoles) > 1 else self.name,
            spec=self.spec,
            image=self.image,
            disks=self.disks,
            memory=Memory(path=self.memory, share=True),
            console=console,
        )

    @property
    def address(self) -> str:
        """The host's loopback address on which its forwarded ports listen."""
        return self._factory.address_of(self.name)

    @property
    def netdev(self) -> str:
        """QEMU's name for its network backend, empty without a network."""
        return netdev_of(self.spec.network)

    @property
    def has_screen(self) -> bool:
        """Whether it has a display."""
        return self.spec.screen

    def scratch(self, name: str) -> Path:
        """A path for a file that QEMU may write; the file is removed with the machine."""
        return self.directory / name

    def cut_power(self) -> None:
        """End its QEMU at once; its disks stay as they are."""
        self.domain.destroy()

    def log(self) -> str:
        """What QEMU printed."""
        return self._factory.log_of(self.domain)

    def save(self, *, guest: GuestNotes) -> Snapshot:
        """Stop the machine, write its device state, and end it; its files are the snapshot."""
        devices = self._into / "device-state"
        devices.touch(mode=0o600)
        self._factory.host.permissions.allow_write(devices)
        capabilities = query_capabilities(self.domain.qmp)
        self.domain.suspend()
        migration.save_devices(
            self.domain, devices, capabilities=capabilities, timeout=self._factory.scaled(SAVE_SECONDS)
        )
        self._factory.end(self.domain)
        for path in (*self.disks, devices):
            path.chmod(self._factory.read_only)
        if capabilities.sealed_memory:  # QEMU 7.2 opens it for writing even for a private mapping
            self.memory.chmod(self._factory.read_only)
        return Snapshot(
            directory=self._into,
            spec=self.spec,
            image=self.image,
            disks=self.disks,
            memory=FullMemory(fingerprint=fingerprint(self.memory)),
            devices=devices,
            capabilities=capabilities,
            guest=guest,
        )
