"""What is kept of a failure: collectors, reports, kept machines."""

from pytest_vmsnap.evidence.attachments import attach
from pytest_vmsnap.evidence.evidence import Evidence, Testimony
from pytest_vmsnap.evidence.kept import Keeper, Kept, Note, damage_of_kept, keep, kept, name_of, store_of, trim
from pytest_vmsnap.evidence.pieces import Piece

__all__ = [
    "Evidence",
    "Testimony",
    "Piece",
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
