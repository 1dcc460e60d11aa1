"""Immutable data without side effects: requests and results."""

from pytest_vmsnap.model.cluster import ClusterMember, ClusterSpec, expect_machines
from pytest_vmsnap.model.digest import digest
from pytest_vmsnap.model.finding import Finding, Status, not_checked, ok, size_text, worst
from pytest_vmsnap.model.guest_notes import GuestNotes, Reseeder
from pytest_vmsnap.model.image import MODULES_LABEL, NO_ADDITIONS, Additions, Image, ImageRequest
from pytest_vmsnap.model.result import Result
from pytest_vmsnap.model.settings import (
    STANDBY_CEILING,
    Accel,
    Artifacts,
    ChannelName,
    Entropy,
    Keep,
    Missing,
    Order,
    Origin,
    Revert,
    Settings,
    Shard,
    Verify,
)
from pytest_vmsnap.model.spec import Disk, Firmware, MachineSpec, Network

__all__ = [
    "ClusterMember",
    "ClusterSpec",
    "expect_machines",
    "MachineSpec",
    "Disk",
    "Network",
    "Firmware",
    "Result",
    "Image",
    "ImageRequest",
    "Additions",
    "NO_ADDITIONS",
    "MODULES_LABEL",
    "Settings",
    "Shard",
    "Entropy",
    "Verify",
    "GuestNotes",
    "Reseeder",
    "STANDBY_CEILING",
    "Origin",
    "Accel",
    "Artifacts",
    "Keep",
    "ChannelName",
    "Missing",
    "Order",
    "Revert",
    "digest",
    "Finding",
    "Status",
    "ok",
    "not_checked",
    "worst",
    "size_text",
]
