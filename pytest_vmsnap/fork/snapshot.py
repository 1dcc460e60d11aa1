"""What is saved of a state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.fork.files import Fingerprint
    from pytest_vmsnap.fork.migration import Abilities
    from pytest_vmsnap.model import GuestNotes, Image, MachineSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A saved machine: its disks' overlays, its memory file, its device state, and what it was made from.

    All of it is read-only from the save on. `memory` is the memory file's fingerprint, by which it is proved
    that no clone has written to it where QEMU itself could not be kept from it. `guest` is what its clones need
    not be asked for.
    """

    directory: Path
    spec: MachineSpec
    image: Image
    disks: tuple[Path, ...]
    memory: Fingerprint
    devices: Path
    abilities: Abilities
    guest: GuestNotes
