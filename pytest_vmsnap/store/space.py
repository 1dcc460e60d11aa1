"""The space that the store has, and whether files can share their blocks there."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import VmsnapError
from pytest_vmsnap.host import MORE_ROOM
from pytest_vmsnap.model import Finding, not_asked, ok, size_text
from pytest_vmsnap.progress import silent
from pytest_vmsnap.store.directory import FORMAT_FILE, Store
from pytest_vmsnap.store.limit import holdings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FICLONE = 0x40049409  # ioctl_ficlone(2)
BLOCK = 4096  # what is shared begins and ends at a block
LOWER_LIMIT = "free some space, lower vmsnap_store_limit, or choose another directory with vmsnap_store"


def share_blocks(source: int, target: int) -> None:
    """Make the file `target` what `source` is, without a copy; raises `OSError` where it cannot be done."""
    fcntl.ioctl(target, FICLONE, source)


def look_at(path: Path, *, limit_mib: int, needed_mib: int) -> Iterator[Finding]:
    """What `vmsnap doctor` says of the store at `path`, which need not be there.

    `limit_mib` is how large it may grow, `needed_mib` what one machine takes.
    """
    # not Path.exists, which raises where a directory above is closed to us
    place = next(each for each in (path, *path.parents) if os.access(each, os.F_OK))
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        yield Finding(name="store", status="failure", found=f"{place} cannot be written to", advice=MORE_ROOM)
        yield not_asked("reflink", "no store")
        return
    yield _room(path, place, limit_mib, needed_mib)
    yield _sharing(place)


def _room(path: Path, place: Path, limit_mib: int, needed_mib: int) -> Finding:
    free = shutil.disk_usage(place).free >> 20
    try:
        held = _held(path) if path == place else 0
    except VmsnapError as error:
        return Finding(name="store", status="failure", found=error.message, advice=error.hint)
    except OSError as error:  # what a run removes meanwhile
        return Finding(name="store", status="warning", found=f"{path} cannot be weighed: {error}")
    found = f"{path}: {size_text(held)} of at most {size_text(limit_mib)}, {size_text(free)} free"
    if free < needed_mib:
        told = f"{found}; a machine needs {size_text(needed_mib)}"
        return Finding(name="store", status="failure", found=told, advice=MORE_ROOM)
    if free < limit_mib - held:
        told = f"{found}: less than it may grow by"
        return Finding(name="store", status="warning", found=told, advice=LOWER_LIMIT)
    return ok("store", found)


def _held(path: Path) -> int:
    """How many MiB the store at `path` has; a directory that is none yet is left as it is."""
    if not (path / FORMAT_FILE).exists():
        return 0
    return sum(each.size for each in holdings(Store(path, progress=silent()))) >> 20


def _sharing(place: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=place) as source, tempfile.TemporaryFile(dir=place) as target:
            source.write(bytes(BLOCK))
            source.flush()
            share_blocks(source.fileno(), target.fileno())
    except OSError as error:
        return ok("reflink", f"no, so copies are written whole ({error.strerror})")
    return ok("reflink", "yes, so copies take no space until they differ")
