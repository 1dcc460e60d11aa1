"""The user and the key of an SSH login."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from pytest_vmsnap.errors import HostError, SpecError

if TYPE_CHECKING:
    from pathlib import Path

KEY_NAME = "id_ecdsa"
COMMENT = "pytest-vmsnap"

# $1: the user, $2: the public key
INSTALL_KEY = """
set -e
home=$(eval "echo ~$1")
mkdir -p "$home/.ssh"
grep -qxF "$2" "$home/.ssh/authorized_keys" 2>/dev/null || printf '%s\\n' "$2" >>"$home/.ssh/authorized_keys"
chmod 700 "$home/.ssh"
chmod 600 "$home/.ssh/authorized_keys"
chown -R "$1:" "$home/.ssh"
sync "$home/.ssh/authorized_keys" 2>/dev/null || true
"""


def paramiko() -> Any:
    """Return the library; raise `HostError` with what to install if it is missing."""
    try:
        return import_module("paramiko")  # heavy, and optional
    except ImportError as error:
        raise HostError("SSH needs paramiko", hint="pip install 'pytest-vmsnap[ssh]'") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class SshLogin:
    """The `user` in the guest, and a key: the `given` one, or one that is made once in `directory`."""

    directory: Path
    user: str = "root"
    given: Path | None = None

    def key_file(self) -> Path:
        """Return the private key's path; make the key if needed. Raises `HostError` if paramiko is missing."""
        if self.given:
            return self.given
        self.directory.mkdir(mode=0o700, exist_ok=True)
        path = self.directory / KEY_NAME
        with FileLock(self.directory / "lock", mode=0o600):
            if not path.exists():
                key = paramiko().ECDSAKey.generate()
                draft = path.with_suffix(".new")
                draft.unlink(missing_ok=True)
                os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                key.write_private_key_file(str(draft))
                draft.rename(path)
        return path

    def key(self) -> Any:
        """Return the private key as paramiko's object.

        Raises `HostError` if paramiko is missing, `SpecError` if the key cannot be used.
        """
        path, library = self.key_file(), paramiko()
        try:
            return library.PKey.from_path(path)
        except (OSError, ValueError, library.SSHException, library.UnknownKeyType) as error:
            raise SpecError(
                f"the SSH key {path} cannot be used: {error}",
                hint="set vmsnap_ssh_key to a private key without a passphrase",
            ) from error

    def public(self) -> str:
        """Return the public key as a line for ``authorized_keys``."""
        key = self.key()
        return f"{key.get_name()} {key.get_base64()} {COMMENT}"

    def install_script(self) -> str:
        """Return the POSIX ``sh`` script that lets the key in, run as root in the guest."""
        return f"set -- {shlex.quote(self.user)} {shlex.quote(self.public())}\n{INSTALL_KEY}"
