"""What is left of a failed test: sections of its report, artifacts, kept machines."""

from pytest_vmsnap.evidence.artifact import Artifact
from pytest_vmsnap.evidence.attachments import attach
from pytest_vmsnap.evidence.evidence import CollectedEvidence, Evidence
from pytest_vmsnap.evidence.kept import Keeper, Kept, Note, damage_of_kept, keep, kept, name_of, store_of, trim

__all__ = [
    "Evidence",
    "CollectedEvidence",
    "Artifact",
    "attach",
    "Keeper",
    "Kept",
    "Note",
    "keep",
    "kept",
    "trim",
    "store_of",
    "name_of",
    "damage_of_kept",
]
