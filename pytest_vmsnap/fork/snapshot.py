"""The saved form of a state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_vmsnap.fork.memory import SavedMemory
    from pytest_vmsnap.host import Capabilities
    from pytest_vmsnap.model import GuestNotes, Image, MachineSpec
    from pytest_vmsnap.network import FaultSpec


def drives_of(disks: tuple[Path, ...], image: Image) -> tuple[Path, ...]:
    """Those of a machine's `disks` that the guest sees as disks: with UEFI, the last one has its variables."""
    return disks if image.firmware == "bios" else disks[:-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A saved machine: its disks' overlays, its memory file, its device state, and what it was made from.

    Nothing writes to these files after the save. In a full snapshot, `memory` is a file; in an incremental one,
    it is another snapshot's memory with some pages replaced. `bare_devices` is true if the device state has no
    configuration section, as after the save of a running machine. `guest` is what the plugin need not ask the
    clones again. `has_lan` says whether it has a card on a cluster's private network.
    """

    directory: Path
    spec: MachineSpec
    image: Image
    disks: tuple[Path, ...]
    memory: SavedMemory
    devices: Path
    capabilities: Capabilities
    guest: GuestNotes
    bare_devices: bool = False
    has_lan: bool = False

    @property
    def memory_mib(self) -> int:
        """How much memory a clone of it has."""
        return self.spec.memory

    @property
    def members(self) -> tuple[Snapshot, ...]:
        """The machine, as `ClusterSnapshot` has several."""
        return (self,)

    def drop_memory(self) -> None:
        """Remove its memory file, which is built again when it is needed."""
        self.memory.drop()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSnapshot:
    """A saved cluster: its `machines` by name, all at one moment, and the `faults` of their network."""

    directory: Path
    machines: Mapping[str, Snapshot]
    faults: tuple[FaultSpec, ...] = ()

    @property
    def memory_mib(self) -> int:
        """How much memory the clones of its machines have."""
        return sum(machine.memory_mib for machine in self.machines.values())

    @property
    def members(self) -> tuple[Snapshot, ...]:
        """Its machines."""
        return tuple(self.machines.values())

    def drop_memory(self) -> None:
        """Remove the memory files of its machines."""
        for machine in self.machines.values():
            machine.memory.drop()


Saved = Snapshot | ClusterSnapshot
