"""Images for tests, made from the one that the plugin has built: other inits, other ways in."""

from __future__ import annotations

import stat
import subprocess
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pytest_vmsnap.guest.shell.scripts import source
from pytest_vmsnap.image.debian.initrd import member, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_vmsnap.model import Image

INIT = """\
#!/bin/busybox sh
busybox mkdir -p /proc /sys /etc /root /run /tmp
busybox mount -t devtmpfs dev /dev
for module in /modules/*; do busybox insmod $module; done
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox --install -s /bin
exec init
"""
SHELL_ON_CONSOLE = {"etc/inittab": "ttyS0::respawn:-/bin/sh\n"}
SHELL_INSTALLED = {
    "etc/inittab": "::respawn:/bin/sh /usr/lib/vmsnap/shell\n",
    "usr/lib/vmsnap/shell": source(),
}
LOGIN_ON_CONSOLE = {
    "etc/inittab": "ttyS0::respawn:/bin/getty -L 115200 ttyS0 vt100\n",
    "etc/group": "root:x:0:\n",
}

# What there is of the guest shell and of the agent in an image that the plugin built.
SHELL = ("/usr/lib/vmsnap/shell", "/etc/systemd/system/multi-user.target.wants/vmsnap-shell.service")
AGENT = ("/usr/sbin/qemu-ga",)
# cloud-init has a generator do this, which our images are without.
CLOUD_INIT = {
    "/etc/systemd/system/multi-user.target.wants/cloud-init.target": "/usr/lib/systemd/system/cloud-init.target"
}


# In load order; they follow those that the image's initrd has.
NETWORK_MODULES = ("net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net")

# A machine that boots in a third of the time that a Debian takes. With 128 MiB 4 of them were free, and a few
# processes at once had the kernel kill one.
CMDLINE = "console=ttyS0 no_timer_check panic=0"
BUSYBOX = ("--vmsnap-image=none", f"--vmsnap-cmdline={CMDLINE}", "--vmsnap-memory=160")


def booting(image: Image, initrd: Path | None = None) -> tuple[str, str]:
    """Options that boot it directly."""
    return f"--vmsnap-kernel={image.kernel}", f"--vmsnap-initrd={initrd or image.initrd}"


def busybox(image: Image, target: Path, files: Mapping[str, str]) -> Path:
    """An initramfs with busybox as init, and with `files`: two archives, of which the later one holds.

    Linux, Documentation/driver-api/early-userspace/buffer-format.rst. The first is the image's initrd, which
    has busybox and its libraries.
    """
    assert image.initrd
    archive = bytearray(image.initrd.read_bytes())
    archive += b"\0" * (-len(archive) % 4)
    directories = {str(place) for name in files for place in PurePosixPath(name).parents} - {"."}
    for name in sorted(directories):
        archive += member(name, stat.S_IFDIR | 0o755, b"")
    for name, text in {"init": INIT, **files}.items():
        archive += member(name, stat.S_IFREG | 0o755, text.encode())
    for name, module in _network_modules(image, target.with_name(f"{target.name}.modules")):
        archive += member(f"modules/{name}", stat.S_IFREG | 0o644, module)
    archive += member("TRAILER!!!", 0, b"")
    target.write_bytes(archive)
    return target


def _network_modules(image: Image, place: Path) -> Iterator[tuple[str, bytes]]:
    """The driver of a virtio network card: names and contents of its modules, from the image's disk."""
    assert image.disk
    place.mkdir(exist_ok=True)
    disk = place / "disk"
    subprocess.run(["qemu-img", "convert", "-O", "raw", image.disk, disk], check=True)
    modules = "/usr/lib/modules"
    listed = subprocess.run(
        ["debugfs", "-R", f"ls -p {modules}", disk], check=True, capture_output=True, text=True
    ).stdout
    release = next(name for line in listed.split() if (name := line.split("/")[5]).strip("."))
    for number, module in enumerate(NETWORK_MODULES, 90):
        file = place / f"{PurePosixPath(module).name}.ko.xz"
        path = f"{modules}/{release}/kernel/{module}.ko.xz"
        subprocess.run(["debugfs", "-R", f"dump {path} {file}", disk], check=True, capture_output=True)
        yield f"{number}-{file.stem}", unpacked(file)
    disk.unlink()


def without(
    image: Image,
    target: Path,
    removed: Sequence[str],
    added: Mapping[str, str],
    *,
    directories: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
) -> Path:
    """A raw copy of the image's disk without the paths in `removed`, and with the files in `added`."""
    assert image.disk
    subprocess.run(["qemu-img", "convert", "-O", "raw", image.disk, target], check=True)
    lines = [f"rm {path}" for path in removed] + [f"mkdir {path}" for path in directories]
    lines += [f"symlink {path} {place}" for path, place in (links or {}).items()]
    for number, (path, text) in enumerate(added.items()):
        source = target.with_name(f"{target.name}.{number}")
        source.write_text(text)
        lines += [f"write {source} {path}", f"sif {path} mode 0100600"]
        lines += [f"sif {path} {field} 0" for field in ("uid", "gid")]
    script = target.with_name(f"{target.name}.debugfs")
    script.write_text("\n".join(lines) + "\n")
    subprocess.run(["debugfs", "-w", "-f", script, target], check=True, capture_output=True)
    return target
