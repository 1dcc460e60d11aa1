"""Which RAM blocks of a machine are saved in addition to its main memory, and where the guest sees them.

The plugin asks QEMU: ``info ramblock`` (ram_block_format in softmmu/physmem.c, now in system/) lists the
blocks, ``info mtree -f`` (mtree_print_flatview in system/memory.c) the guest-physical addresses. The firmware
is saved: a QEMU that waits for an incoming stream forgets its own copy (rom_reset in hw/core/loader.c), and
without it a clone could not reboot. Other read-only blocks are not saved: a new QEMU fills them from its own
files. QEMU 8.0 and later mark read-only blocks. QEMU 7.2 does not, but their names show it: ``/rom@...``
(rom_set_mr in hw/core/loader.c), ``....rom`` (pci_add_option_rom in hw/pci/pci.c, pc_memory_init in
hw/i386/pc.c), ``pc.bios`` (x86_bios_rom_init), ``isa-bios`` (pc_isa_bios_init in hw/i386/pc_sysfw.c).

The flash chips of UEFI (``system.flash0``, ``system.flash1``; pc_pflash_create in hw/i386/pc_sysfw.c) are not
saved either: a new QEMU fills them from their files (pflash_cfi01_realize in hw/block/pflash_cfi01.c), to which
the guest's writes go at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BLOCK = re.compile(
    r"^ *(?P<name>\S.*?)?  +\d+ [KMGT]?i?B  0x[0-9a-f]{16} 0x(?P<used>[0-9a-f]{16}) 0x[0-9a-f]{16}"
    r"(?: 0x[0-9a-f]{16} +(?P<access>r[ow]))?\s*$",
    re.MULTILINE,
)
# If the accelerator has the range too, its name follows in capitals, for example KVM.
RANGE = re.compile(
    r"^ +(?P<first>[0-9a-f]{16})-(?P<last>[0-9a-f]{16}) \(prio -?\d+, (?P<kind>[^)]+)\): (?P<name>.+?)"
    r"(?: @(?P<offset>[0-9a-f]{16}))?(?: [A-Z]+)?\s*$",
    re.MULTILINE,
)
READABLE = ("ram", "rom", "romd", "nv-ram", "nv-romd")
DEVICE_MEMORY = ("ramd", "nv-ramd")  # memory of a device on the host; QEMU does not migrate it
ROM_NAME = re.compile(r"/rom@.*|(?:.*[./])?[^/]*\.rom|pc\.bios|isa-bios")
FLASH_NAME = re.compile(r"system\.flash[01]")
FIRMWARE = "pc.bios"  # ends at 4 GiB (x86_bios_rom_init in hw/i386/x86.c)
FIRMWARE_END = 4 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A RAM block: QEMU's `name` for it, and how many bytes of it are `used`.

    `read_only` is None if QEMU does not report it.
    """

    name: str
    used: int
    read_only: bool | None = None

    @property
    def region(self) -> str:
        """The name of its memory region: `name` without the address of a device before it."""
        return self.name if self.name.startswith("/rom@") else self.name.rpartition("/")[2]

    @property
    def filled_by_qemu(self) -> bool:
        """Whether a new QEMU that loads a device state fills it with the same content."""
        if self.region == FIRMWARE:
            return False
        if FLASH_NAME.fullmatch(self.name):
            return True
        return bool(ROM_NAME.fullmatch(self.name)) if self.read_only is None else self.read_only


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatRange:
    """`length` bytes at `offset` in the region `name`; the guest has them at its physical `address`."""

    name: str
    kind: str
    address: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """`length` bytes of a block, at the guest's physical `address`."""

    address: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedBlock:
    """A block to save: its `pieces`, in order, are all of its content."""

    name: str
    used: int
    pieces: tuple[Piece, ...]


def blocks_in(text: str) -> list[Block]:
    """The blocks that ``info ramblock`` lists; raises `HostError` if there are none or one cannot be parsed."""
    found = [
        Block(
            name=line["name"] or "",
            used=int(line["used"], 16),
            read_only=line["access"] == "ro" if line["access"] else None,
        )
        for line in BLOCK.finditer(text)
    ]
    rows = [line for line in text.splitlines() if line.strip()]
    if not found or len(found) != len(rows) - 1:  # without the heading
        raise HostError(f"cannot parse QEMU's list of RAM blocks (info ramblock):\n{text}")
    return found


def extra_blocks(blocks: Iterable[Block], *, main: str) -> list[Block]:
    """The blocks other than the `main` memory that must be saved or that have no name.

    QEMU gives no name to a block that it does not migrate. One of these, with the size of the main memory, is
    unused: libvirt defines a main memory too, and ours replaces it (``-machine memory-backend=``).
    """
    blocks = list(blocks)
    size = next((block.used for block in blocks if block.region == main), 0)
    unused = next((block for block in blocks if not block.name and block.used == size), None)
    return [
        block for block in blocks if block.region != main and block is not unused and not block.filled_by_qemu
    ]


def firmware_alone(blocks: Sequence[Block]) -> list[SavedBlock]:
    """What to save of extra `blocks` that are the firmware and nothing else; empty if there are others."""
    if [block.region for block in blocks] != [FIRMWARE]:
        return []
    (block,) = blocks
    piece = Piece(address=FIRMWARE_END - block.used, length=block.used)
    return [SavedBlock(name=block.name, used=block.used, pieces=(piece,))]


def flat_ranges_in(text: str) -> list[FlatRange]:
    """The memory that the processors see, from the output of ``info mtree -f``."""
    views = [view for view in text.split("FlatView #") if 'AS "memory"' in view]
    return [
        FlatRange(
            name=line["name"],
            kind=line["kind"],
            address=int(line["first"], 16),
            offset=int(line["offset"] or "0", 16),
            length=int(line["last"], 16) - int(line["first"], 16) + 1,
        )
        for view in views
        for line in RANGE.finditer(view)
    ]


def to_save(
    blocks: Iterable[Block], mapped: Iterable[FlatRange], *, main: str, shared: Iterable[str]
) -> list[SavedBlock]:
    """Which of `blocks` to save in addition to the `main` memory, and where to read the content of each.

    `shared` are the memory backends that other processes may write to. Raises `HostError` with the name of the
    block if one cannot be saved.
    """
    blocks, mapped, shared = list(blocks), list(mapped), set(shared)
    known = {block.region for block in blocks}
    for part in mapped:
        if part.kind in DEVICE_MEMORY or (part.kind in READABLE and part.name not in known):
            raise _refused(part.name, "QEMU does not migrate it")
    return [
        SavedBlock(name=block.name, used=block.used, pieces=_pieces(block, blocks, mapped, shared))
        for block in extra_blocks(blocks, main=main)
        if block.name
    ]


def _pieces(block: Block, blocks: list[Block], mapped: list[FlatRange], shared: set[str]) -> tuple[Piece, ...]:
    region = block.region
    if region in shared:
        raise _refused(block.name, "it is shared, so a revert would change it for other processes too")
    if sum(other.region == region for other in blocks) > 1:
        raise _refused(block.name, f"QEMU has several memory regions named {region}")
    pieces = _covering(block.used, [part for part in mapped if part.name == region and part.kind in READABLE])
    if pieces is None:
        raise _refused(block.name, "at the moment, all or part of it has no address in the guest")
    return pieces


def _covering(used: int, parts: list[FlatRange]) -> tuple[Piece, ...] | None:
    """Where bytes 0 to `used` are; None if `parts` leave some out."""
    bounds = sorted({0, used, *(edge for part in parts for edge in (part.offset, part.offset + part.length))})
    pieces = []
    for start, end in pairwise(bound for bound in bounds if bound <= used):
        part = next((one for one in parts if one.offset <= start and end <= one.offset + one.length), None)
        if part is None:
            return None
        pieces.append(Piece(address=part.address + start - part.offset, length=end - start))
    return tuple(pieces)


def _refused(name: str, reason: str) -> HostError:
    return HostError(
        f"the machine cannot be saved, because its RAM block {name} cannot be saved: {reason}",
        hint="remove the device with this block from the machine (pytest_vmsnap_domain_xml), or take the "
        "snapshot after the guest's driver has set up the device",
    )
