"""Known-good states, and how they are made."""

from pytest_vmsnap.states.base import image_request
from pytest_vmsnap.states.declared import BASE, Declaration, state
from pytest_vmsnap.states.library import Library
from pytest_vmsnap.states.tree import StateTree, tree_of

__all__ = ["Library", "state", "Declaration", "StateTree", "tree_of", "image_request", "BASE"]
