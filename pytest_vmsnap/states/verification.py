"""Check the memory files of incremental snapshots."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import StoreDamaged
from pytest_vmsnap.fork import LayeredMemory
from pytest_vmsnap.states import entries
from pytest_vmsnap.store import Damage, EntryName, checksum, damage_of

if TYPE_CHECKING:
    from pytest_vmsnap.store import Store


def damaged_memory(store: Store, name: EntryName) -> Damage | None:
    """What is wrong with the memory file in the entry `name`; None if nothing is.

    The store has no checksums of memory files, because they are quickly rebuilt. So this builds the file again,
    from the parent's memory and the snapshot's pages, and compares it. Raises `StoreFull` or `OSError` if there
    is no space.
    """
    entry = store.place(name)
    file = entry / entries.RAM
    state = EntryName(kind=entries.KIND, key=name.key)
    inode = entry.stat().st_ino
    try:
        if any(damage_of(store, state)):
            return None  # the damage of the state is reported, and removing the state removes this file
        memory = entries.load(store, store.place(state)).memory
        if not isinstance(memory, LayeredMemory):
            return Damage(name=name, what=f"{file} does not belong to an incremental snapshot", inode=inode)
        with tempfile.TemporaryDirectory(prefix=".verify-", dir=store.runs.parent / "locks") as scratch:
            memory.build(Path(scratch))
            if checksum(Path(scratch) / entries.RAM) == checksum(file):
                return None
    except (StoreDamaged, FileNotFoundError) as error:
        return Damage(name=name, what=str(error), inode=inode)
    return Damage(
        name=name, what=f"the content of {file} does not match its snapshot's pages and parent", inode=inode
    )
