"""States of machines: declared with ``@state``, built once, and saved in the store."""

from pytest_vmsnap.states.archive import extract_disk
from pytest_vmsnap.states.base_state import BASE, image_request
from pytest_vmsnap.states.cache_key import differences
from pytest_vmsnap.states.cluster_archive import export, import_
from pytest_vmsnap.states.declarations import Declaration, declaration_of, state
from pytest_vmsnap.states.entries import (
    KIND,
    Origin,
    is_full,
    load,
    load_any,
    made_from,
    members_of,
    origin_of,
    seal,
    seal_cluster,
    title_of,
    use,
)
from pytest_vmsnap.states.from_registry import lock, pull_state, push_state, registry_source
from pytest_vmsnap.states.function_source import source_parts
from pytest_vmsnap.states.input_files import inputs_digest
from pytest_vmsnap.states.last_run import NeededState
from pytest_vmsnap.states.last_run import read as read_needed
from pytest_vmsnap.states.library import Library
from pytest_vmsnap.states.lock_file import read_lock, write_lock
from pytest_vmsnap.states.preparation import PreparationHook
from pytest_vmsnap.states.run_registry import RunRegistry
from pytest_vmsnap.states.system_store import SystemStore, expect_own_store, share_state
from pytest_vmsnap.states.system_store import finding as system_store_finding
from pytest_vmsnap.states.tree import NO_STATES, StateTree, collect
from pytest_vmsnap.states.verification import damaged_memory

__all__ = [
    "state",
    "Declaration",
    "declaration_of",
    "StateTree",
    "NO_STATES",
    "collect",
    "source_parts",
    "inputs_digest",
    "Library",
    "RunRegistry",
    "PreparationHook",
    "image_request",
    "BASE",
    "KIND",
    "Origin",
    "origin_of",
    "made_from",
    "is_full",
    "load",
    "load_any",
    "members_of",
    "use",
    "seal",
    "seal_cluster",
    "registry_source",
    "push_state",
    "pull_state",
    "lock",
    "read_lock",
    "write_lock",
    "title_of",
    "SystemStore",
    "share_state",
    "expect_own_store",
    "system_store_finding",
    "export",
    "import_",
    "extract_disk",
    "damaged_memory",
    "differences",
    "NeededState",
    "read_needed",
]
