"""Write an empty overlay without a process: what ``qemu-img create -b`` makes, in a thousandth of the time.

QEMU, docs/interop/qcow2.rst, version 3: a header with the backing file's format and name, a refcount table and
its first block, and an L1 table without entries, so every cluster comes from the backing file.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import StoreDamaged

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = b"QFI\xfb"
HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
L2_SPAN = CLUSTER * CLUSTER // 8  # bytes of the disk for each entry of the L1 table
FORMAT_EXTENSION = 0xE2792ACA
REFCOUNT_TABLE, REFCOUNT_BLOCK, L1_TABLE = 1, 2, 3  # cluster numbers; 0 is the header


def create_overlay(path: Path, *, backing: Path) -> Path:
    """Create a qcow2 at `path` that stores what differs from the qcow2 `backing`.

    Raises `StoreDamaged` if `backing` is not a qcow2, `FileExistsError` if `path` exists.
    """
    size = virtual_size(backing)
    l1_entries = -(-size // L2_SPAN)
    clusters = L1_TABLE + max(1, -(-l1_entries * 8 // CLUSTER))
    name = os.fsencode(backing)
    extensions = struct.pack(">II8s", FORMAT_EXTENSION, 5, b"qcow2") + bytes(8)
    header = HEADER.pack(
        *(MAGIC, 3, HEADER.size + len(extensions), len(name), CLUSTER_BITS, size),
        *(0, l1_entries, L1_TABLE * CLUSTER),  # not encrypted
        *(REFCOUNT_TABLE * CLUSTER, 1, 0, 0),  # one cluster; no snapshots
        *(0, 0, 0, 4, HEADER.size),  # no features; refcounts of 1 << 4 bits
    )
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.pwrite(descriptor, header + extensions + name, 0)
        os.pwrite(descriptor, struct.pack(">Q", REFCOUNT_BLOCK * CLUSTER), REFCOUNT_TABLE * CLUSTER)
        os.pwrite(descriptor, struct.pack(">H", 1) * clusters, REFCOUNT_BLOCK * CLUSTER)
        os.ftruncate(descriptor, clusters * CLUSTER)
    finally:
        os.close(descriptor)
    return path


def virtual_size(path: Path) -> int:
    """The size in bytes of the disk in a qcow2. Raises `StoreDamaged` if the file is not a qcow2."""
    with path.open("rb") as file:
        start = file.read(32)
    if len(start) < 32 or start[:4] != MAGIC:
        raise StoreDamaged(f"{path} is not a qcow2 image")
    return int(struct.unpack_from(">Q", start, 24)[0])
