"""A minimal initrd: it loads the disk's driver, mounts the disk, and starts the system on it.

Debian's own initrd starts udev and looks for every kind of root; on an emulated processor that takes longer
than the rest of the kernel's start. Format: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import lzma
import stat
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What the root file system needs; modules that are built into the kernel are left out. crc32c: ext4 requests
# it by name (it is a softdep, see modules.dep(5)), and nothing in the initrd serves such requests.
MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")

BUSYBOX = "usr/bin/busybox"
LOADER = "lib64/ld-linux-x86-64.so.2"
LIBRARIES = ("libc.so.6", "libresolv.so.2")
LIBRARY_DIRECTORY = "usr/lib/x86_64-linux-gnu"

INIT = """\
#!/bin/busybox sh
busybox mount -t devtmpfs dev /dev
for module in /modules/*; do busybox insmod $module; done
tries=0
until busybox mount -t ext4 /dev/vda /root; do
    tries=$((tries + 1))
    [ $tries -lt 50 ] || { echo "initrd: no ext4 file system on /dev/vda"; exec busybox sh; }
    busybox sleep 0.1
done
exec busybox switch_root /root /sbin/init "$@"
"""


def make(root: Path, target: Path) -> None:
    """Write the initrd for the system in the directory `root` to `target`, uncompressed."""
    archive = bytearray()
    for name in ("bin", "dev", "root", "modules", "lib", "lib64"):
        archive += _member(name, stat.S_IFDIR | 0o755, b"")
    archive += _member("init", stat.S_IFREG | 0o755, INIT.encode())
    archive += _member("bin/busybox", stat.S_IFREG | 0o755, _read(root / _busybox(root)))
    archive += _member(LOADER, stat.S_IFREG | 0o755, _read(root / LOADER))
    for library in LIBRARIES:
        archive += _member(f"lib/{library}", stat.S_IFREG | 0o755, _read(root / LIBRARY_DIRECTORY / library))
    for number, module in enumerate(_modules(root)):
        name = module.name.removesuffix(".xz")
        archive += _member(f"modules/{number:02}-{name}", stat.S_IFREG | 0o644, _unpacked(module))
    archive += _member("TRAILER!!!", 0, b"")
    target.write_bytes(archive)


def _busybox(root: Path) -> str:
    return BUSYBOX if (root / BUSYBOX).exists() else "bin/busybox"  # without merged /usr


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"the new system lacks {path.name}, which its initrd needs") from error


def _modules(root: Path) -> Iterator[Path]:
    """Yield the files of `MODULES` and their dependencies in load order (modules.dep(5))."""
    listings = sorted(root.glob("usr/lib/modules/*/modules.dep")) or sorted(
        root.glob("lib/modules/*/modules.dep")
    )
    if not listings:
        raise ImageError("the new system has no kernel modules", hint="is its linux-image package complete?")
    listing = listings[-1]
    dependencies = dict(line.split(":", 1) for line in listing.read_text().splitlines())
    by_name = {path.rpartition("/")[2].split(".")[0].replace("-", "_"): path for path in dependencies}
    seen: set[str] = set()
    for name in MODULES:
        if name not in by_name:
            continue
        for path in (*reversed(dependencies[by_name[name]].split()), by_name[name]):
            if path not in seen:
                seen.add(path)
                yield listing.parent / path


def _unpacked(module: Path) -> bytes:
    content = module.read_bytes()
    return lzma.decompress(content) if module.suffix == ".xz" else content


def _member(name: str, mode: int, content: bytes) -> bytes:
    """One file of a cpio archive in "newc" format: 13 numbers of 8 hexadecimal digits, padded to 4 bytes."""
    encoded = name.encode() + b"\0"
    numbers = [0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0]
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + encoded
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
