from __future__ import annotations

import pytest

from pytest_vmsnap.errors import HostError
from pytest_vmsnap.fork.ram_blocks import (
    FlatRange,
    Piece,
    SavedBlock,
    blocks_in,
    extra_blocks,
    firmware_alone,
    flat_ranges_in,
    to_save,
)

QEMU_7_2 = """\
              Block Name    PSize              Offset               Used              Total
                    ram0    4 KiB  0x0000000000000000 0x0000000004000000 0x0000000004000000
                            4 KiB  0x0000000008000000 0x0000000004000000 0x0000000004000000
   0000:00:01.0/vga.vram    4 KiB  0x0000000004080000 0x0000000001000000 0x0000000001000000
    /rom@etc/acpi/tables    4 KiB  0x0000000005140000 0x0000000000020000 0x0000000000200000
                 pc.bios    4 KiB  0x0000000004000000 0x0000000000040000 0x0000000000040000
0000:00:03.0/virtio-net-pci.rom    4 KiB  0x0000000005100000 0x0000000000040000 0x0000000000040000
                  pc.rom    4 KiB  0x0000000004040000 0x0000000000020000 0x0000000000020000
    0000:00:01.0/vga.rom    4 KiB  0x0000000005080000 0x0000000000010000 0x0000000000010000
   /rom@etc/table-loader    4 KiB  0x0000000005340000 0x0000000000001000 0x0000000000010000
"""


def with_access(text: str) -> str:
    """The list as QEMU has it since 8.0: with the host's address, and with who may write."""
    heading, *rows = text.splitlines()
    roms = ("rom", "bios", "tables", "table-loader")
    columns = (f"0x00007f12ebe00000  {'ro' if row.split()[0].endswith(roms) else 'rw'}" for row in rows)
    lines = [f"{heading}                HVA  RO"]
    return "\n".join(lines + [f"{row} {column}" for row, column in zip(rows, columns, strict=True)]) + "\n"


QEMU_10 = with_access(QEMU_7_2)
TREE = """\
FlatView #0
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan

FlatView #1
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): ram0 KVM
  00000000000a0000-00000000000affff (prio 1, ram): vga.vram KVM
  00000000000b0000-00000000000bffff (prio 1, i/o): vga-lowmem @0000000000010000
  00000000000c0000-00000000000dffff (prio 1, rom): ram0 @00000000000c0000 KVM
  0000000000100000-0000000003ffffff (prio 0, ram): ram0 @0000000000100000 KVM
  00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram KVM
  00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios KVM

"""
LOWER = "  00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram KVM\n"
VRAM = "0000:00:01.0/vga.vram"


def saved(blocks: str, tree: str, *shared: str) -> list[SavedBlock]:
    return to_save(blocks_in(blocks), flat_ranges_in(tree), main="ram0", shared=shared)


@pytest.mark.parametrize("text", [QEMU_7_2, QEMU_10], ids=["7.2", "10"])
def test_the_display_and_the_firmware_are_saved_and_other_roms_are_not(text: str) -> None:
    assert [block.name for block in extra_blocks(blocks_in(text), main="ram0")] == [VRAM, "pc.bios"]
    block, firmware = saved(text, TREE)
    assert firmware.pieces == (Piece(address=0xFFFC0000, length=0x40000),)
    assert (block.name, block.used) == (VRAM, 16 << 20)
    assert sum(piece.length for piece in block.pieces) == 16 << 20
    assert block.pieces[-1] == Piece(address=0xFD010000, length=(16 << 20) - 0x10000)


@pytest.mark.parametrize("text", [QEMU_7_2, QEMU_10], ids=["7.2", "10"])
def test_of_a_machine_without_a_screen_the_firmware_is_saved_at_the_same_place(text: str) -> None:
    lines = [line for line in text.splitlines(keepends=True) if "vga" not in line]
    blocks = blocks_in("".join(lines))
    tree = "".join(line for line in TREE.splitlines(keepends=True) if "vga" not in line)
    expected = to_save(blocks, flat_ranges_in(tree), main="ram0", shared=())
    assert firmware_alone(extra_blocks(blocks, main="ram0")) == expected
    assert [block.name for block in expected] == ["pc.bios"]
    assert firmware_alone(extra_blocks(blocks_in(text), main="ram0")) == []


def test_a_writable_block_is_saved_whatever_its_name_where_qemu_says_that_it_is_writable() -> None:
    tables = next(line for line in QEMU_10.splitlines() if "acpi/tables" in line)
    text = QEMU_10.replace(tables, tables.replace("  ro", "  rw"))
    assert "/rom@etc/acpi/tables" in [block.name for block in extra_blocks(blocks_in(text), main="ram0")]


def test_the_guests_addresses_are_those_of_the_processors_memory() -> None:
    found = flat_ranges_in(TREE)
    assert len(found) == 7
    assert found[3] == FlatRange(name="ram0", kind="rom", address=0xC0000, offset=0xC0000, length=0x20000)


@pytest.mark.parametrize(
    ("blocks", "tree", "shared", "reason"),
    [
        (QEMU_10, TREE.replace(LOWER, ""), (), f"{VRAM} cannot be saved: at the moment, all or part of it"),
        (QEMU_10, TREE, ("vga.vram",), f"{VRAM} cannot be saved: it is shared"),
        (QEMU_10 + QEMU_10.splitlines()[3].replace(":01.0", ":02.0"), TREE, (), f"{VRAM} .* several"),
        (QEMU_10, TREE.replace("ram): vga.vram KVM\n", "ramd): bar KVM\n"), (), "bar cannot .* not migrate"),
        (QEMU_10, TREE.replace(LOWER, LOWER + LOWER.replace("vga.vram", "own")), (), "own cannot .* migrate"),
    ],
)
def test_a_block_that_cannot_be_saved_is_named(
    blocks: str, tree: str, shared: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(HostError, match=reason):
        saved(blocks, tree, *shared)


@pytest.mark.parametrize("text", ["", "unknown command: 'info ramblock'", QEMU_10 + "   ram1  4 KiB 0x0\n"])
def test_a_list_that_is_not_understood_is_not_taken_for_an_empty_one(text: str) -> None:
    with pytest.raises(HostError, match="cannot parse"):
        blocks_in(text)
