"""The directory for what outlives a run: entries that appear complete or not at all."""

from pytest_vmsnap.store.dependencies import EntryName, Kind, closure, needs_of
from pytest_vmsnap.store.directory import Fetched, Source, SourceTitle, Store
from pytest_vmsnap.store.fingerprint import Fingerprint, checksum, extents, fingerprint, stat_fingerprint
from pytest_vmsnap.store.hard_links import link_entries, link_or_copy
from pytest_vmsnap.store.limit import EntryUsage, discard, entry_usages, trim
from pytest_vmsnap.store.lock_owner import LockOwner
from pytest_vmsnap.store.manifest import MARKS, PULLED
from pytest_vmsnap.store.manifest import check as expect_whole
from pytest_vmsnap.store.manifest import read as read_manifest
from pytest_vmsnap.store.space import findings, share_blocks
from pytest_vmsnap.store.verification import Damage, damage_of, has_checksums, inode_of, remove_damaged

__all__ = [
    "Store",
    "Source",
    "SourceTitle",
    "Fetched",
    "LockOwner",
    "Kind",
    "EntryName",
    "EntryUsage",
    "entry_usages",
    "trim",
    "discard",
    "Fingerprint",
    "fingerprint",
    "stat_fingerprint",
    "checksum",
    "extents",
    "read_manifest",
    "MARKS",
    "PULLED",
    "share_blocks",
    "findings",
    "expect_whole",
    "closure",
    "needs_of",
    "Damage",
    "damage_of",
    "has_checksums",
    "inode_of",
    "remove_damaged",
    "link_entries",
    "link_or_copy",
]
