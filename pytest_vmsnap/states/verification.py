"""Whether the memory file of an incremental snapshot is what its parent and its own pages make."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import StoreDamaged
from pytest_vmsnap.fork import LayeredMemory
from pytest_vmsnap.states import entries
from pytest_vmsnap.store import Damage, Name, checksum, damage_of

if TYPE_CHECKING:
    from pytest_vmsnap.store import Store


def damaged_memory(store: Store, name: Name) -> Damage | None:
    """What is wrong with the memory file `name`, which is made once more and compared; None if nothing is.

    Its own checksum is not taken: it can be made again in a moment. Raises `StoreFull` where there is no room.
    """
    entry = store.place(name)
    file = entry / entries.RAM
    state = Name(kind=entries.KIND, key=name.key)
    inode = entry.stat().st_ino
    try:
        if any(damage_of(store, state)):
            return None  # that is told, and this goes with it
        memory = entries.load(store, store.place(state)).memory
        if not isinstance(memory, LayeredMemory):
            return Damage(name=name, what=f"{file} belongs to no incremental snapshot", inode=inode)
        with tempfile.TemporaryDirectory(prefix=".verify-", dir=store.runs.parent / "locks") as scratch:
            memory.build(Path(scratch))
            if checksum(Path(scratch) / entries.RAM) == checksum(file):
                return None
    except (StoreDamaged, FileNotFoundError) as error:
        return Damage(name=name, what=str(error), inode=inode)
    return Damage(
        name=name, what=f"the content of {file} is not what its pages and its parent make", inode=inode
    )
