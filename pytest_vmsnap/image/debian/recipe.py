"""The content of a Debian image: packages, files, settings. All of it is part of the image's key."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from pytest_vmsnap.image.debian import initrd, trim
from pytest_vmsnap.model import NO_ADDITIONS, Additions, digest

VERSION = 1  # raise it if the build changes and nothing below does
DISK_MIB = 4096

KERNEL_PACKAGE = "linux-image-cloud-amd64"
PACKAGES = (
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "procps",
    "iproute2",
    "netbase",
    "ca-certificates",
    "openssh-server",
    "qemu-guest-agent",
    "initramfs-tools",
)

# QEMU's user-mode network: the host is 10.0.2.2, the name server 10.0.2.3 (QEMU, "Network emulation").
FILES = {
    "/etc/hostname": "vm\n",
    "/etc/hosts": "127.0.0.1 localhost\n127.0.1.1 vm\n::1 localhost ip6-localhost ip6-loopback\n",
    "/etc/fstab": "# the root file system is mounted by the kernel's command line\n",
    "/etc/resolv.conf": "nameserver 10.0.2.3\n",
    "/etc/locale.conf": "LANG=C.UTF-8\n",
    "/etc/systemd/network/80-vmsnap.network": """\
[Match]
Name=en* eth*

[Network]
DHCP=ipv4
LinkLocalAddressing=no
IPv6AcceptRA=no
""",
}

LINKS = {"/etc/default/locale": "../locale.conf"}

# Calendar timers would all fire in the first test after a revert.
TIMERS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "logrotate.timer",
    "man-db.timer",
    "systemd-tmpfiles-clean.timer",
)

# Not needed in a machine that lives for a test; licences stay.
LEFT_OUT = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)

# no_timer_check: on a busy host an emulated timer is late, and Linux panics ("IO-APIC + timer doesn't work!").
CMDLINE = "root=/dev/vda rw console=ttyS0 no_timer_check net.ifnames=0"

# Runs in the new root, after all packages are installed.
SETUP = """\
set -eu
passwd -q -d root
ln -sfn /etc/machine-id /var/lib/dbus/machine-id
systemctl -q enable systemd-networkd.service ssh.service serial-getty@ttyS0.service
ssh-keygen -A >/dev/null
rm -rf /var/lib/systemd/random-seed /var/log/apt /var/log/dpkg.log /var/log/alternatives.log
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What an image is made of.

    `packages` are the user's. Without `trim` the units and the initrd are Debian's own, and the kernel's
    command line has only `CMDLINE`.
    """

    suite: str
    packages: tuple[str, ...]
    trim: bool = True
    additions: Additions = NO_ADDITIONS

    @property
    def include(self) -> tuple[str, ...]:
        """All packages to install."""
        own_kernel = any(package.startswith("linux-image-") for package in self.packages)
        trimmed = trim.PACKAGES if self.trim else ()
        return (*PACKAGES, *(() if own_kernel else (KERNEL_PACKAGE,)), *trimmed, *self.packages)

    @property
    def files(self) -> dict[str, str]:
        """The content of each file to add, by path."""
        return FILES | (trim.FILES if self.trim else {}) | dict(self.additions.files)

    @property
    def links(self) -> dict[str, str]:
        """The target of each symbolic link to add, by path."""
        masked = {f"/etc/systemd/system/{name}": "/dev/null" for name in TIMERS}
        return LINKS | masked | (trim.links() if self.trim else {}) | dict(self.additions.links)

    @property
    def setup(self) -> str:
        """The shell script that finishes the root."""
        return SETUP + (trim.SETUP if self.trim else "")

    @property
    def cmdline(self) -> str:
        """The kernel's command line."""
        return f"{CMDLINE} {trim.CMDLINE}" if self.trim else CMDLINE

    @property
    def options(self) -> list[str]:
        """Options for mmdebstrap."""
        options = ["--variant=minbase", f"--include={','.join(self.include)}"]
        options += [f"--dpkgopt={line}" for line in LEFT_OUT]
        options += ["--skip=cleanup/reproducible"]  # it empties /etc/machine-id
        if self.suite in ("sid", "unstable"):
            options.append('--aptopt=Acquire::Check-Valid-Until "false"')
        return options

    def hooks(self, overlay: str) -> list[str]:
        """mmdebstrap's hooks, which unpack the tar file `overlay` into the root and run `setup`."""
        script = f'chroot "$1" sh -c {shlex.quote(self.setup)}'
        return [f"--customize-hook=tar-in {shlex.quote(overlay)} /", f"--customize-hook={script}"]

    def identity(self) -> str:
        """The recipe's digest: another recipe makes another image."""
        parts: dict[str, Any] = {
            "version": VERSION,
            "options": self.options,
            "suite": self.suite,
            "files": self.files,
            "links": self.links,
            "setup": self.setup,
            "cmdline": self.cmdline,
            "initrd": [initrd.INIT, initrd.MODULES] if self.trim else None,
            "disk": DISK_MIB,
        }
        return digest(parts)
