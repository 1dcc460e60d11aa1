"""Known-good states, and how they are made."""

from pytest_vmsnap.states.base import image_request
from pytest_vmsnap.states.declared import BASE, Declaration, state
from pytest_vmsnap.states.entries import KIND, Origin, is_full, load, made_from, origin_of
from pytest_vmsnap.states.library import Library
from pytest_vmsnap.states.transfer import export, extract_disk, import_
from pytest_vmsnap.states.tree import StateTree, tree_of

__all__ = [
    "Library",
    "state",
    "Declaration",
    "StateTree",
    "tree_of",
    "image_request",
    "BASE",
    "KIND",
    "Origin",
    "origin_of",
    "made_from",
    "is_full",
    "load",
    "export",
    "import_",
    "extract_disk",
]
