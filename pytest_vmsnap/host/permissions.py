"""The user that QEMU runs as, and the files that it may access.

In system mode QEMU runs as a user of its own. libvirt's default is to give that user the disk and every backing
file, even your own image, which then keeps another owner. So the plugin has libvirt change nothing, and this
module grants access to the plugin's files instead. It never touches your own files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree.ElementTree import Element


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """What QEMU may access: `user` is its (uid, gid), or None if it runs as the current user."""

    user: tuple[int, int] | None

    def allow_search(self, directory: Path) -> None:
        """Let QEMU pass through one of our directories. Raises `HostError` if that needs a missing setfacl."""
        self._decision(directory, 0o710, "x", own=False)

    def allow_read(self, path: Path) -> None:
        """Let QEMU read one of our files. Raises `HostError` if that needs a missing setfacl."""
        self._decision(path, 0o640, "r", own=False)

    def allow_write(self, path: Path) -> None:
        """Let QEMU write a file or directory of ours. Raises `HostError` if that needs a missing setfacl."""
        self._decision(path, 0o770 if path.is_dir() else 0o660, "rwx" if path.is_dir() else "rw", own=True)

    def _decision(self, path: Path, mode: int, letters: str, *, own: bool) -> None:
        if self.user is None:
            return
        uid, gid = self.user
        if os.geteuid() == 0:
            os.chown(path, uid if own else -1, gid)
            path.chmod(mode)
            return
        if not shutil.which("setfacl"):
            raise HostError(
                f"QEMU runs as user {uid} and needs access to {path}, but setfacl is missing",
                hint="install the package acl, or use vmsnap_uri=qemu:///session",
            )
        subprocess.run(["setfacl", "-m", f"u:{uid}:{letters}", str(path)], check=True)

    def can_read(self, path: Path) -> bool:
        """Whether QEMU can read `path` now; this includes passing through all directories above it."""
        return self._may(path, "r")

    def can_search(self, directory: Path) -> bool:
        """Whether QEMU can pass through `directory` and all directories above it now."""
        return self._may(directory, "x")

    def _may(self, path: Path, letter: str) -> bool:
        if self.user is None:
            return os.access(path, os.R_OK if letter == "r" else os.X_OK)
        if os.geteuid() == 0:
            return self.runs(["test", f"-{letter}", str(path)])
        # we cannot become that user, so only what everybody may do counts
        bit = 0o004 if letter == "r" else 0o001
        parents = all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)
        return parents and bool(path.stat().st_mode & bit)

    def runs(self, command: list[str]) -> bool:
        """Whether `command` succeeds as the user that QEMU runs as; only root can check this."""
        uid, gid = self.user or (os.geteuid(), os.getegid())
        groups = os.getgrouplist(name_of(uid), gid) if self.user else None
        done = subprocess.run(
            command, user=uid, group=gid, extra_groups=groups, capture_output=True, check=False
        )
        return done.returncode == 0


def name_of(uid: int) -> str:
    """The user's name, or the number if there is none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def qemu_user(capabilities: Element) -> tuple[int, int] | None:
    """The (uid, gid) that libvirt starts QEMU as, from its ``<capabilities>``; None if it does not say."""
    for model in capabilities.findall("./host/secmodel"):
        label = model.findtext("./baselabel[@type='kvm']") or model.findtext("./baselabel") or ""
        if model.findtext("model") == "dac" and label:
            uid, gid = label.replace("+", "").split(":")
            return int(uid), int(gid)
    return None


def other_security_models(capabilities: Element) -> tuple[str, ...]:
    """The security models other than file ownership that confine QEMU: ``apparmor``, ``selinux``."""
    names = (model.findtext("model") or "" for model in capabilities.findall("./host/secmodel"))
    return tuple(name for name in names if name not in ("dac", "none", ""))
