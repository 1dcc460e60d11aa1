"""The programs that build a Debian image, and how this user can run them."""

from __future__ import annotations

import os
import platform
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Literal

from pytest_vmsnap.errors import ImageError
from pytest_vmsnap.image import commands

Mode = Literal["root", "unshare", "fakechroot"]

DEBIAN_PACKAGES = "mmdebstrap uidmap fakeroot e2fsprogs qemu-utils"
INSTALL = f"""\
mmdebstrap and its helpers build debian: images; install them:
  Debian, Ubuntu: apt install {DEBIAN_PACKAGES} (on Ubuntu also debian-archive-keyring)
  Fedora: dnf install mmdebstrap debian-keyring fakeroot e2fsprogs qemu-img
  Arch: mmdebstrap and debian-archive-keyring (AUR), fakeroot, e2fsprogs, qemu-img
or use an image of your own: --vmsnap-image=PATH (VMSNAP_IMAGE, vmsnap_image)"""

MISSING_KEYS = "Debian's archive keys are missing or outdated: install the package debian-archive-keyring"
# where Debian, Ubuntu, Fedora and Arch install the keys with which apt checks Debian's signatures
KEYS = Path("/usr/share/keyrings"), Path("/etc/apt/trusted.gpg.d")

SUBORDINATE = Path("/etc/subuid"), Path("/etc/subgid")


def mode() -> Mode:
    """The mode in which mmdebstrap can run for this user (mmdebstrap(1), MODES).

    Raises `ImageError` if a program is missing, or if this host cannot build.
    """
    if platform.machine() != "x86_64":
        raise ImageError(
            f"debian: images are for x86_64, but this host is {platform.machine()}",
            hint="use an image of your own: --vmsnap-image=PATH",
        )
    _need("mmdebstrap", "mke2fs", "qemu-img", "tar")
    if os.geteuid() == 0:
        return "root"
    _need("fakeroot")
    if _found("newuidmap") and all(_has_range(path) for path in SUBORDINATE):
        return "unshare"
    if _found("fakechroot"):
        return "fakechroot"
    if not _found("newuidmap"):
        raise ImageError("newuidmap is missing", hint=INSTALL)
    user = _user()
    raise ImageError(
        f"the user {user} has no subordinate user ids, which mmdebstrap needs",
        hint=f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}\n"
        "(with ranges that no other user has, see /etc/subuid), or install fakechroot",
    )


def has_keys() -> bool:
    """Whether the keys of Debian's archive are installed."""
    return any(any(directory.glob("debian-archive-*")) for directory in KEYS)


def private_mounts_prefix() -> list[str]:
    """The command prefix that gives root's mmdebstrap private mounts, which vanish with it.

    Without it, a killed run leaves /proc and /sys mounted in a half-made root (seen with mmdebstrap 1.3.5).
    Empty if unshare(1) is missing, or if the kernel forbids it; then mmdebstrap cannot mount anything either.
    """
    command = ["unshare", "--mount", "--propagation", "private", "--"]
    try:
        done = subprocess.run(
            [*command, "true"],
            env=commands.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        return []
    return command if done.returncode == 0 else []


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a user id without a name, as in some containers
        return str(os.getuid())


def _found(name: str) -> str | None:
    return shutil.which(name, path=commands.environment()["PATH"])


def _need(*names: str) -> None:
    if missing := [name for name in names if not _found(name)]:
        verb = "is" if len(missing) == 1 else "are"
        raise ImageError(f"{', '.join(missing)} {verb} missing", hint=INSTALL)


def _has_range(path: Path) -> bool:
    """Whether this user has an id range in `path` (subuid(5): name or number, first id, count)."""
    ours = {str(os.getuid()), _user()}
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return False
    return any(line.split(":")[0] in ours for line in lines)
