"""The fork engine: a template is saved, and clones of the snapshot share its memory file.

Knows no channel and no test; what is on a machine is others' concern.
"""

from pytest_vmsnap.fork.clone import Clone
from pytest_vmsnap.fork.files import backing_of, copy_onto, flatten, rebase, remove
from pytest_vmsnap.fork.forge import Forge
from pytest_vmsnap.fork.memory import FullMemory, LayeredMemory, SavedMemory
from pytest_vmsnap.fork.snapshot import Snapshot
from pytest_vmsnap.fork.template import Template
from pytest_vmsnap.host import Abilities

__all__ = [
    "Forge",
    "Template",
    "Snapshot",
    "Clone",
    "SavedMemory",
    "FullMemory",
    "LayeredMemory",
    "Abilities",
    "rebase",
    "copy_onto",
    "flatten",
    "backing_of",
    "remove",
]
