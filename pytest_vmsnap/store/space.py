"""The space that the store has, and whether files can share blocks there."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import VmsnapError
from pytest_vmsnap.host import MORE_ROOM
from pytest_vmsnap.model import Finding, not_checked, ok, size_text
from pytest_vmsnap.progress import silent
from pytest_vmsnap.store.directory import FORMAT_FILE, Store
from pytest_vmsnap.store.limit import entry_usages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FICLONE = 0x40049409  # ioctl_ficlone(2)
BLOCK = 4096  # files share whole blocks
LOWER_LIMIT = "free some space, lower vmsnap_store_limit, or choose another directory with vmsnap_store"


def share_blocks(source: int, target: int) -> None:
    """Give `target` the content of `source` by sharing its blocks; raises `OSError` if that is impossible.

    Both are file descriptors.
    """
    fcntl.ioctl(target, FICLONE, source)


def findings(path: Path, *, limit_mib: int, needed_mib: int) -> Iterator[Finding]:
    """What `vmsnap doctor` reports about the store at `path`, which need not exist.

    `limit_mib` is how large it may grow, `needed_mib` what one machine needs.
    """
    # not Path.exists, which raises if we may not enter a directory above
    place = next(each for each in (path, *path.parents) if os.access(each, os.F_OK))
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        yield Finding(name="store", status="failure", found=f"{place} cannot be written to", advice=MORE_ROOM)
        yield not_checked("reflink", "no store")
        return
    yield _room(path, place, limit_mib, needed_mib)
    yield _sharing(place)


def _room(path: Path, place: Path, limit_mib: int, needed_mib: int) -> Finding:
    free = shutil.disk_usage(place).free >> 20
    try:
        held = _held(path) if path == place else 0
    except VmsnapError as error:
        return Finding(name="store", status="failure", found=error.message, advice=error.hint)
    except OSError as error:  # a run removed something meanwhile
        return Finding(name="store", status="warning", found=f"cannot measure the size of {path}: {error}")
    found = f"{path}: {size_text(held)} of at most {size_text(limit_mib)}, {size_text(free)} free"
    if free < needed_mib:
        told = f"{found}; a machine needs {size_text(needed_mib)}"
        return Finding(name="store", status="failure", found=told, advice=MORE_ROOM)
    if free < limit_mib - held:
        told = f"{found}; it may grow by more than that"
        return Finding(name="store", status="warning", found=told, advice=LOWER_LIMIT)
    return ok("store", found)


def _held(path: Path) -> int:
    """How many MiB the store at `path` holds; 0 for a directory that is no store yet, which is not changed."""
    if not (path / FORMAT_FILE).exists():
        return 0
    return sum(each.size for each in entry_usages(Store(path, progress=silent()))) >> 20


def _sharing(place: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=place) as source, tempfile.TemporaryFile(dir=place) as target:
            source.write(bytes(BLOCK))
            source.flush()
            share_blocks(source.fileno(), target.fileno())
    except OSError as error:
        return ok("reflink", f"no, so copies are written whole ({error.strerror})")
    return ok("reflink", "yes, so copies take no space until they differ")
