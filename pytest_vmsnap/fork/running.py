"""The save of a machine that runs: design §5.6, in the order that QEMU wants it.

Its memory is private, so ``x-ignore-shared`` would not leave it out; the pages that are its own are read from
its process, or, where a user may not do that, written by QEMU (``pmemsave``, which took five times as long).
Its devices are written by ``xen-save-devices-state`` (QEMU, "QMP reference"; no Xen is involved. With ``live``
true it would inactivate the disks). It leaves out every RAM block: the main memory and the display's alike.
QEMU writes the content of such others to files (``pmemsave``), and they become a section of the stream
(`ram_section`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import GuestGone, HostError
from pytest_vmsnap.fork import ram_blocks, ram_section
from pytest_vmsnap.fork.pages import Run, copy_runs, own_runs
from pytest_vmsnap.host import MAIN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_vmsnap.fork.ram_blocks import SavedBlock
    from pytest_vmsnap.host import Domain

# hw/i386/pc_piix.c: no machine has its hole below that
ALWAYS_LOW = 2 << 30
ABOVE = 4 << 30
BELOW_4G = re.compile(r"alias ram-below-4g @\S+ ([0-9a-f]{16})-([0-9a-f]{16})")
WHOLE_CHUNK = 256 << 20


def runs_to_save(domain: Domain, memory: Path, size: int) -> tuple[list[Run], str]:
    """What of the guest's memory of `size` bytes differs from the file `memory`, and an empty text.

    Where this host lets nobody look (a QEMU of another user's), it is all of it, and the text says why.
    """
    pid = domain.pid()
    try:
        if pid is None:
            raise ProcessLookupError(f"the QEMU of {domain.name} is not to be seen")
        return own_runs(pid, memory), ""
    except OSError as error:
        starts = range(0, size, WHOLE_CHUNK)
        return [
            Run(offset=start, length=min(WHOLE_CHUNK, size - start)) for start in starts
        ], error.strerror or str(error)


def save_memory(
    domain: Domain, runs: list[Run], pages: Path, size: int, *, memory: Path, place: Callable[[Path], Path]
) -> None:
    """Write each of `runs` to a file in the directory `pages` that is named by its offset (hexadecimal).

    The guest, whose memory is of `size` bytes, and mapped from the file `memory`, stands still. `place` lets
    QEMU write a file. Raises `GuestGone` where QEMU ends meanwhile.
    """
    pid = domain.pid()
    if pid is not None:
        try:
            copy_runs(pid, memory, runs, lambda run: pages / f"{run.offset:012x}")
        except PermissionError:
            pass  # QEMU itself may write it
        except (ProcessLookupError, FileNotFoundError) as error:
            raise GuestGone(
                f"QEMU of {domain.name} ended while it was saved", console=domain.console_text()
            ) from error
        else:
            return
    low = _low_end(domain, size)
    for run in (part for whole in runs for part in _parted(whole, low)):
        address = run.offset if run.offset < low else run.offset - low + ABOVE
        domain.qmp("pmemsave", val=address, size=run.length, filename=str(place(pages / f"{run.offset:012x}")))


def other_blocks(domain: Domain) -> list[SavedBlock]:
    """The RAM blocks that have to be saved beside the main memory; the guest stands still.

    Takes one question to QEMU where there are none. Raises `HostError`, which names the block, where one cannot
    be saved.
    """
    blocks = ram_blocks.blocks_in(_monitor(domain, "info ramblock"))
    if not ram_blocks.others(blocks, main=MAIN_MEMORY):
        return []
    backends = domain.qmp("query-memdev")
    shared = [backend["id"] for backend in backends if backend.get("share") and "id" in backend]
    mapped = ram_blocks.mapped_in(_monitor(domain, "info mtree -f"))
    return ram_blocks.to_save(blocks, mapped, main=MAIN_MEMORY, shared=shared)


def save_devices(
    domain: Domain, path: Path, blocks: Sequence[SavedBlock], *, place: Callable[[Path], Path]
) -> None:
    """Write the state of all devices, and the RAM blocks `blocks`, to `path`; the guest stands still.

    `place` lets QEMU write a file; those for the blocks are beside `path` meanwhile.
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


def _parted(run: Run, low: int) -> list[Run]:
    """`run` in parts that are whole in the guest's addresses too: it has a hole behind `low`."""
    if run.offset >= low or run.end <= low:
        return [run]
    return [Run(offset=run.offset, length=low - run.offset), Run(offset=low, length=run.end - low)]


def _low_end(domain: Domain, size: int) -> int:
    """How many bytes of the memory are below the hole for devices; what is more begins at 4 GiB."""
    if size <= ALWAYS_LOW:
        return size
    tree = _monitor(domain, "info mtree")
    if not (found := BELOW_4G.search(tree)):
        raise HostError(f"QEMU of {domain.name} does not say where its memory lies")
    return int(found[2], 16) - int(found[1], 16) + 1
