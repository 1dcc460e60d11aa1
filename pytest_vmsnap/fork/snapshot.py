"""What is saved of a state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.fork.memory import SavedMemory
    from pytest_vmsnap.host import Abilities
    from pytest_vmsnap.model import GuestNotes, Image, MachineSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A saved machine: its disks' overlays, its memory file, its device state, and what it was made from.

    All of it is read-only from the save on. Full, its `memory` is a file; incremental, it is another's with
    some pages changed. `bare_devices` tells of a device state without a configuration section, as that of a
    machine that was saved while it ran is. `guest` is what its clones need not be asked for.
    """

    directory: Path
    spec: MachineSpec
    image: Image
    disks: tuple[Path, ...]
    memory: SavedMemory
    devices: Path
    abilities: Abilities
    guest: GuestNotes
    bare_devices: bool = False
