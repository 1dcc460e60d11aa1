"""The directory with what outlives a run: entries that appear whole or not at all."""

from pytest_vmsnap.store.asker import Asker
from pytest_vmsnap.store.directory import Store
from pytest_vmsnap.store.fingerprint import Fingerprint, checksum, extents, fingerprint, outline
from pytest_vmsnap.store.limit import Holding, discard, holdings, trim
from pytest_vmsnap.store.links import link_entries, link_or_copy
from pytest_vmsnap.store.manifest import check as expect_whole
from pytest_vmsnap.store.manifest import read as read_manifest
from pytest_vmsnap.store.needs import Kind, Name, closure
from pytest_vmsnap.store.space import look_at, share_blocks
from pytest_vmsnap.store.verification import Damage, damage_of, has_checksums, remove_damaged

__all__ = [
    "Store",
    "Asker",
    "Kind",
    "Name",
    "Holding",
    "holdings",
    "trim",
    "discard",
    "Fingerprint",
    "fingerprint",
    "outline",
    "checksum",
    "extents",
    "read_manifest",
    "share_blocks",
    "look_at",
    "expect_whole",
    "closure",
    "Damage",
    "damage_of",
    "has_checksums",
    "remove_damaged",
    "link_entries",
    "link_or_copy",
]
