"""The saved form of a state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.fork.memory import SavedMemory
    from pytest_vmsnap.host import Capabilities
    from pytest_vmsnap.model import GuestNotes, Image, MachineSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A saved machine: its disks' overlays, its memory file, its device state, and what it was made from.

    Nothing writes to these files after the save. In a full snapshot, `memory` is a file; in an incremental one,
    it is another snapshot's memory with some pages replaced. `bare_devices` is true if the device state has no
    configuration section, as after the save of a running machine. `guest` is what the plugin need not ask the
    clones again.
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
