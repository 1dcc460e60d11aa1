"""The RAM blocks of a machine beside its main memory, such as a display's.

``xen-save-devices-state`` leaves them out. They are found by what QEMU's monitor says of its memory
(``info ramblock``, ``info mtree``), read by their guest-physical addresses (``pmemsave``), and put into the
saved stream as a section of the kind that a migration has for memory. QEMU loads that as it loads any (QEMU,
"Migration framework"; migration/ram.c, `ram_load`, takes the blocks that are listed and does not miss others).

Blocks that the guest cannot write to are left out: a new QEMU has the same in them.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from pytest_vmsnap.errors import HostError, SpecError
from pytest_vmsnap.host import MEMORY_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from pytest_vmsnap.host import Domain

# name, page size, offset, used and total length; newer QEMUs have further columns
BLOCK = re.compile(r"^\s*(\S*)\s+\d+ [KMG]iB\s+0x[0-9a-f]+\s+0x([0-9a-f]+)\s+0x[0-9a-f]+", re.MULTILINE)
REGION = re.compile(
    r"^\s*[0-9a-f]+-[0-9a-f]+ \(prio -?\d+, (\S+)\): (?!alias )(.+?)(?: \[disabled\])?$", re.MULTILINE
)
MAPPED = re.compile(
    r"^  ([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (\S+)\): (.+?)(?: @([0-9a-f]+))?(?: \S+)?$"
)
SYSTEM_VIEW = re.compile(r"^ Root memory region: system$", re.MULTILINE)
READ_ONLY = ("rom",)

# migration/qemu-file.h, savevm.c and ram.c: the same from QEMU 7.2 to 11
MAGIC_AND_VERSION = struct.pack(">II", 0x5145564D, 3)
SECTION_FULL, SECTION_FOOTER = 0x04, 0x7E
SECTION_ID = 0
RAM_VERSION = 4
FLAG_ZERO, FLAG_MEM_SIZE, FLAG_PAGE, FLAG_EOS, FLAG_CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
PAGE = 4096
ZERO_PAGE = bytes(PAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RamBlock:
    """A RAM block that the guest may have written to: QEMU's `name` for it, and where it is mapped.

    `address` is guest-physical, `size` in bytes.
    """

    name: str
    address: int
    size: int


def find_blocks(domain: Domain) -> list[RamBlock]:
    """The blocks of a domain beside its main memory that are to be saved.

    Raises `SpecError` where one cannot be, since the guest has not mapped it, with its name.
    """

    def monitor(line: str) -> str:
        answer = str(domain.qmp("human-monitor-command", {"command-line": line}))
        return answer.replace("\r\n", "\n")

    blocks = dict(_blocks(monitor("info ramblock")))
    if not blocks:
        return []
    kinds = {name: kind for kind, name in REGION.findall(monitor("info mtree"))}
    wanted = {
        block: region
        for block in blocks
        if (region := _region_of(block, kinds)) and kinds[region] not in READ_ONLY
    }
    if not wanted:
        return []
    mapped = _mapped(monitor("info mtree -f"))
    found = []
    for block, region in wanted.items():
        places = mapped.get(region, [])
        if len(places) != 1 or places[0][1] != blocks[block]:
            raise SpecError(
                f"{domain.name} cannot be saved: the guest has not mapped its RAM block {block!r} "
                f"({blocks[block] >> 10} KiB) as one piece, so its content cannot be read",
                hint="leave the device that it belongs to out of the machine (pytest_vmsnap_domain_xml)",
            )
        found.append(RamBlock(name=block, address=places[0][0], size=blocks[block]))
    return found


def insert_blocks(
    domain: Domain, blocks: list[RamBlock], devices: Path, *, scratch: Path, place: Callable[[Path], Path]
) -> None:
    """Put the content of `blocks`, as it is now, into the saved stream in the file `devices`.

    The guest stands still. `scratch` is a path for a file that is removed, `place` lets QEMU write a file.
    Raises `HostError` where the stream is none that is known.
    """
    rest = devices.read_bytes()
    if not rest.startswith(MAGIC_AND_VERSION):
        raise HostError(
            f"QEMU of {domain.name} saved its devices in a format that is not known: {rest[:8].hex()}"
        )
    with devices.open("r+b") as stream:
        stream.write(MAGIC_AND_VERSION)
        _write_section(stream, [(block, _content(domain, block, scratch, place)) for block in blocks])
        stream.write(rest[len(MAGIC_AND_VERSION) :])


def _content(domain: Domain, block: RamBlock, scratch: Path, place: Callable[[Path], Path]) -> Iterator[bytes]:
    domain.qmp("pmemsave", val=block.address, size=block.size, filename=str(place(scratch)))
    try:
        with scratch.open("rb") as file:
            while page := file.read(PAGE):
                yield page
    finally:
        scratch.unlink()


def _write_section(stream: BinaryIO, blocks: Iterable[tuple[RamBlock, Iterator[bytes]]]) -> None:
    blocks = list(blocks)
    stream.write(struct.pack(">BI", SECTION_FULL, SECTION_ID) + _text("ram"))
    stream.write(struct.pack(">II", 0, RAM_VERSION))
    stream.write(struct.pack(">Q", sum(block.size for block, _ in blocks) | FLAG_MEM_SIZE))
    # with the capability x-ignore-shared, an address follows each, which counts for shared memory only
    stream.writelines(_text(block.name) + struct.pack(">QQ", block.size, 0) for block, _ in blocks)
    for block, pages in blocks:
        continued = 0
        for number, page in enumerate(pages):
            is_zero = page == ZERO_PAGE
            flags = (FLAG_ZERO if is_zero else FLAG_PAGE) | continued
            stream.write(struct.pack(">Q", number * PAGE | flags))
            if not continued:
                stream.write(_text(block.name))
            stream.write(b"\0" if is_zero else page.ljust(PAGE, b"\0"))
            continued = FLAG_CONTINUE
    stream.write(struct.pack(">Q", FLAG_EOS))
    stream.write(struct.pack(">BI", SECTION_FOOTER, SECTION_ID))


def _text(text: str) -> bytes:
    data = text.encode()
    return bytes([len(data)]) + data


def _blocks(text: str) -> Iterator[tuple[str, int]]:
    """Name and used length of what ``info ramblock`` lists, but for the main memory and what has no name."""
    for name, used in BLOCK.findall(text):
        if name not in ("", MEMORY_ID):
            yield name, int(used, 16)


def _region_of(block: str, regions: Iterable[str]) -> str | None:
    """The memory region of a block, whose name has the path of its device before that of the region."""
    return next((name for name in regions if block == name or block.endswith(f"/{name}")), None)


def _mapped(text: str) -> dict[str, list[tuple[int, int]]]:
    """Of the memory that the processors see (``info mtree -f``): address and length of each region's pieces."""
    found: dict[str, list[tuple[int, int]]] = {}
    for view in re.split(r"^FlatView #\d+$", text, flags=re.MULTILINE):
        if not SYSTEM_VIEW.search(view):
            continue
        for line in view.splitlines():
            if (match := MAPPED.match(line)) and match[3] != "i/o":
                start, end = int(match[1], 16), int(match[2], 16)
                found.setdefault(match[4], []).append((start, end - start + 1))
        break
    return found
