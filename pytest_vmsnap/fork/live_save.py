"""How a running machine is saved, in the order that QEMU requires.

Its memory is private, so ``x-ignore-shared`` would not leave it out. Its own pages are read from the QEMU
process or, if the user may not do that, written by QEMU (``pmemsave``, which took five times as long).
``xen-save-devices-state`` writes the devices (QEMU, "QMP reference"; no Xen is involved; with ``live`` true it
would inactivate the disks). It omits every RAM block: the main memory as well as, for example, the display's.
QEMU writes the content of the other blocks to files (``pmemsave``), which become a section of the stream
(`ram_section`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import GuestGone, HostError
from pytest_vmsnap.fork import ram_blocks, ram_section
from pytest_vmsnap.fork.pages import PageRange, copy_ranges, private_ranges
from pytest_vmsnap.host import MAIN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_vmsnap.fork.ram_blocks import SavedBlock
    from pytest_vmsnap.host import Domain

# hw/i386/pc_piix.c: no machine has its hole for devices below this
ALWAYS_LOW = 2 << 30
ABOVE = 4 << 30
BELOW_4G = re.compile(r"alias ram-below-4g @\S+ ([0-9a-f]{16})-([0-9a-f]{16})")
WHOLE_CHUNK = 256 << 20


def ranges_to_save(domain: Domain, memory: Path, size: int) -> tuple[list[PageRange], str]:
    """The parts of the guest's memory of `size` bytes that differ from the file `memory`, and an empty text.

    If this user may not see that (QEMU runs as another user), returns all of the memory and the reason.
    """
    pid = domain.pid()
    try:
        if pid is None:
            raise ProcessLookupError(f"the QEMU process of {domain.name} is not visible")
        return private_ranges(pid, memory), ""
    except OSError as error:
        starts = range(0, size, WHOLE_CHUNK)
        return [
            PageRange(offset=start, length=min(WHOLE_CHUNK, size - start)) for start in starts
        ], error.strerror or str(error)


def save_memory(
    domain: Domain,
    ranges: list[PageRange],
    pages: Path,
    size: int,
    *,
    memory: Path,
    place: Callable[[Path], Path],
) -> None:
    """Write each of `ranges` to a file in the directory `pages`, named by its offset (hexadecimal).

    The guest must be stopped; its memory has `size` bytes and is mapped from the file `memory`. `place` lets
    QEMU write a file. Raises `GuestGone` if QEMU ends meanwhile.
    """
    pid = domain.pid()
    if pid is not None:
        try:
            copy_ranges(pid, memory, ranges, lambda page_range: pages / f"{page_range.offset:012x}")
        except PermissionError:
            pass  # QEMU writes them, below
        except (ProcessLookupError, FileNotFoundError) as error:
            raise GuestGone(
                f"QEMU of {domain.name} ended while it was saved", console=domain.console_text()
            ) from error
        else:
            return
    low = _low_end(domain, size)
    for page_range in (part for whole in ranges for part in _parted(whole, low)):
        address = page_range.offset if page_range.offset < low else page_range.offset - low + ABOVE
        domain.qmp(
            "pmemsave",
            val=address,
            size=page_range.length,
            filename=str(place(pages / f"{page_range.offset:012x}")),
        )


def extra_blocks(domain: Domain) -> list[SavedBlock]:
    """The RAM blocks to save in addition to the main memory; the guest must be stopped.

    If they are the firmware alone, this costs one question to QEMU. Raises `HostError` with the name of the
    block if one cannot be saved.
    """
    blocks = ram_blocks.blocks_in(_monitor(domain, "info ramblock"))
    if alone := ram_blocks.firmware_alone(ram_blocks.extra_blocks(blocks, main=MAIN_MEMORY)):
        return alone
    backends = domain.qmp("query-memdev")
    shared = [backend["id"] for backend in backends if backend.get("share") and "id" in backend]
    mapped = ram_blocks.flat_ranges_in(_monitor(domain, "info mtree -f"))
    return ram_blocks.to_save(blocks, mapped, main=MAIN_MEMORY, shared=shared)


def save_devices(
    domain: Domain, path: Path, blocks: Sequence[SavedBlock], *, place: Callable[[Path], Path]
) -> None:
    """Write the state of all devices and the RAM blocks `blocks` to `path`; the guest must be stopped.

    `place` lets QEMU write a file. Meanwhile, the files of the blocks are in the same directory as `path`.
    """
    domain.qmp("xen-save-devices-state", filename=str(place(path)), live=False)
    if not blocks:
        return
    written: list[Path] = []
    try:
        contents = []
        for block in blocks:
            first = len(written)
            for piece in block.pieces:
                written.append(place(path.with_name(f"ram-block{len(written)}")))
                domain.qmp("pmemsave", val=piece.address, size=piece.length, filename=str(written[-1]))
            contents.append(ram_section.Content(name=block.name, size=block.used, files=tuple(written[first:])))
        ram_section.insert(path, contents)
    finally:
        for file in written:
            file.unlink(missing_ok=True)


def _monitor(domain: Domain, line: str) -> str:
    return str(domain.qmp("human-monitor-command", {"command-line": line}))


def _parted(page_range: PageRange, low: int) -> list[PageRange]:
    """Split `page_range` into parts that are contiguous for the guest, whose memory has a hole at `low`."""
    if page_range.offset >= low or page_range.end <= low:
        return [page_range]
    return [
        PageRange(offset=page_range.offset, length=low - page_range.offset),
        PageRange(offset=low, length=page_range.end - low),
    ]


def _low_end(domain: Domain, size: int) -> int:
    """How many bytes of the memory are below the hole for devices; the rest begins at 4 GiB."""
    if size <= ALWAYS_LOW:
        return size
    tree = _monitor(domain, "info mtree")
    if not (found := BELOW_4G.search(tree)):
        raise HostError(
            f"QEMU of {domain.name} does not report where its memory is (no ram-below-4g in info mtree)"
        )
    return int(found[2], 16) - int(found[1], 16) + 1
