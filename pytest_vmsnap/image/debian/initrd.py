"""A minimal initrd: it loads the disk's driver, mounts the disk, and starts the system on it.

Debian's own initrd starts udev and looks for every kind of root; on an emulated processor that takes longer
than the rest of the kernel's start. Format: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import gzip
import lzma
import stat
import sys
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ImageError
from pytest_vmsnap.model import MODULES_LABEL

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# What the root file system needs; modules that are built into the kernel are left out. crc32c: ext4 requests
# it by name (it is a softdep, see modules.dep(5)), and nothing in the initrd serves such requests.
MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")

# A kernel of the user's own: its modules are no files of the image, so udev cannot load them before they are
# mounted.
OWN_MODULES = (*MODULES, "virtio_console", "virtio_net", "virtio_rng")

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


OWN_INIT = """\
#!/bin/busybox sh
busybox mount -t devtmpfs dev /dev
busybox mount -t sysfs sys /sys
for module in /own-modules/*; do busybox insmod $module; done
busybox rm -rf /modules /own-modules
tries=0
until busybox mount -t ext4 /dev/vda /root; do
    tries=$((tries + 1))
    [ $tries -lt 50 ] || { echo "initrd: no ext4 file system on /dev/vda"; exec busybox sh; }
    busybox sleep 0.1
done
place=/root/usr/lib/modules/@release@
busybox mkdir -p $place
for disk in /sys/block/vd*; do
    [ "$(busybox cat $disk/serial)" != @label@ ] || busybox mount -t ext4 -o ro /dev/${disk##*/} $place
done
busybox umount /sys
exec busybox switch_root /root /sbin/init "$@"
"""


def make(root: Path, target: Path) -> None:
    """Write the initrd for the system in the directory `root` to `target`, uncompressed."""
    archive = bytearray()
    for name in ("bin", "dev", "root", "modules", "lib", "lib64"):
        archive += member(name, stat.S_IFDIR | 0o755, b"")
    archive += member("init", stat.S_IFREG | 0o755, INIT.encode())
    archive += member("bin/busybox", stat.S_IFREG | 0o755, _read(root / _busybox(root)))
    archive += member(LOADER, stat.S_IFREG | 0o755, _read(root / LOADER))
    for library in LIBRARIES:
        archive += member(f"lib/{library}", stat.S_IFREG | 0o755, _read(root / LIBRARY_DIRECTORY / library))
    archive += _modules(_newest_modules(root), "modules", MODULES)
    archive += member("TRAILER!!!", 0, b"")
    target.write_bytes(archive)


def with_other_modules(initrd: Path, modules: Path, target: Path) -> None:
    """Write `initrd`, as `make` makes it, with the kernel modules in `modules` instead of its own to `target`.

    The kernel unpacks several archives one after the other; a later file replaces an earlier one. `modules` has
    a file modules.dep. It is on the machine's last disk, where `OWN_INIT` mounts it. Raises `ImageError`.
    """
    archive = bytearray(_padded(initrd.read_bytes()))
    init = OWN_INIT.replace("@release@", modules.name).replace("@label@", MODULES_LABEL)
    archive += member("sys", stat.S_IFDIR | 0o755, b"")
    archive += member("own-modules", stat.S_IFDIR | 0o755, b"")
    archive += _modules(modules, "own-modules", OWN_MODULES)
    archive += member("init", stat.S_IFREG | 0o755, init.encode())
    archive += member("TRAILER!!!", 0, b"")
    target.write_bytes(archive)


def _busybox(root: Path) -> str:
    return BUSYBOX if (root / BUSYBOX).exists() else "bin/busybox"  # without merged /usr


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"the new system lacks {path.name}, which its initrd needs") from error


def _newest_modules(root: Path) -> Path:
    """The directory of the modules of the newest kernel in the system in `root`."""
    listings = sorted(root.glob("usr/lib/modules/*/modules.dep")) or sorted(
        root.glob("lib/modules/*/modules.dep")
    )
    if not listings:
        raise ImageError("the new system has no kernel modules", hint="is its linux-image package complete?")
    return listings[-1].parent


def _modules(directory: Path, place: str, names: Sequence[str]) -> bytes:
    """The modules `names` and their dependencies, in load order, as members in the directory `place`."""
    archive = bytearray()
    for number, module in enumerate(_in_load_order(directory, names)):
        name = module.name.partition(".ko")[0]
        archive += member(f"{place}/{number:02}-{name}.ko", stat.S_IFREG | 0o644, unpacked(module))
    return bytes(archive)


def _in_load_order(directory: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield the files of the modules `names` in `directory` and their dependencies (modules.dep(5))."""
    listing = (directory / "modules.dep").read_text()
    dependencies = dict(line.split(":", 1) for line in listing.splitlines())
    by_name = {path.rpartition("/")[2].split(".")[0].replace("-", "_"): path for path in dependencies}
    seen: set[str] = set()
    for name in names:
        if name not in by_name:
            continue
        for path in (*reversed(dependencies[by_name[name]].split()), by_name[name]):
            if path not in seen:
                seen.add(path)
                yield directory / path


def unpacked(module: Path) -> bytes:
    """The content of a module, which may be compressed (kmod(8))."""
    unpack = {".xz": lzma.decompress, ".gz": gzip.decompress, ".zst": zstd.decompress}.get(module.suffix, bytes)
    return bytes(unpack(module.read_bytes()))


def member(name: str, mode: int, content: bytes) -> bytes:
    """One file of a cpio archive in "newc" format: 13 numbers of 8 hexadecimal digits, padded to 4 bytes."""
    encoded = name.encode() + b"\0"
    numbers = [0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0]
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + encoded
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
