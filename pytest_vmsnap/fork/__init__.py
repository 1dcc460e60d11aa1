"""The fork engine: it saves a template, and clones of the snapshot share its memory file.

It knows nothing of channels and tests; other packages decide what runs on a machine.
"""

from pytest_vmsnap.fork.clone import Clone
from pytest_vmsnap.fork.domain_factory import DomainFactory
from pytest_vmsnap.fork.files import backing_of, copy_onto, flatten, rebase, references_of, remove
from pytest_vmsnap.fork.memory import FullMemory, LayeredMemory, SavedMemory
from pytest_vmsnap.fork.qcow2 import MAGIC as QCOW2_MAGIC
from pytest_vmsnap.fork.snapshot import ClusterSnapshot, Saved, Snapshot, drives_of
from pytest_vmsnap.fork.template import Template
from pytest_vmsnap.host import Capabilities

__all__ = [
    "DomainFactory",
    "Template",
    "Snapshot",
    "ClusterSnapshot",
    "Saved",
    "drives_of",
    "Clone",
    "SavedMemory",
    "FullMemory",
    "LayeredMemory",
    "Capabilities",
    "rebase",
    "copy_onto",
    "flatten",
    "backing_of",
    "references_of",
    "QCOW2_MAGIC",
    "remove",
]
