"""Known-good states, and how they are made."""

from pytest_vmsnap.states.base import BASE, DiedOfKvm, build_base, image_request
from pytest_vmsnap.states.declared import Declaration, declaration_of, state
from pytest_vmsnap.states.inputs import inputs_digest
from pytest_vmsnap.states.source import source_parts
from pytest_vmsnap.states.tree import NO_STATES, StateTree, collect

__all__ = [
    "state",
    "Declaration",
    "declaration_of",
    "StateTree",
    "NO_STATES",
    "collect",
    "source_parts",
    "inputs_digest",
    "build_base",
    "image_request",
    "BASE",
    "DiedOfKvm",
]
