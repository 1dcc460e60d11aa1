"""A machine's TPM 2.0: a process of swtpm, to which QEMU connects (swtpm(8), QEMU's docs/specs/tpm.rst).

QEMU saves the TPM's state with that of the devices, so each clone starts with an empty directory. swtpm ends
when QEMU's connection ends.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.host.permissions import Permissions

SWTPM = "swtpm"
INSTALL_TPM = """\
install it:
Debian, Ubuntu: sudo apt install swtpm
Fedora: sudo dnf install swtpm
Arch: sudo pacman -S swtpm"""
END_SECONDS = 5.0


class Tpm:
    """A running TPM that listens on the socket `path`, with its state in `directory`.

    Raises `HostError` if swtpm is missing or does not start.
    """

    def __init__(self, directory: Path, path: Path, permissions: Permissions) -> None:
        if not (program := shutil.which(SWTPM)):
            raise HostError("tpm=True: swtpm is not installed", hint=INSTALL_TPM)
        directory.mkdir(mode=0o700, exist_ok=True)
        self._log = directory / "log"
        with socket.socket(socket.AF_UNIX) as listening, self._log.open("wb") as log:
            path.unlink(missing_ok=True)
            listening.bind(str(path))  # here, not in swtpm: then QEMU can connect at once
            path.chmod(0o600)
            permissions.allow_write(path)
            listening.listen(1)
            control = f"type=unixio,fd={listening.fileno()}"
            self._process = subprocess.Popen(
                [
                    program,
                    "socket",
                    "--tpm2",
                    "--tpmstate",
                    f"dir={directory}",
                    "--ctrl",
                    control,
                    "--terminate",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[listening.fileno()],
                start_new_session=True,  # Ctrl-C at the terminal must not reach it
                env={"PATH": os.defpath},
            )

    def expect_running(self) -> None:
        """Raise `HostError` with what it printed, if it has ended."""
        if self._process.poll() is not None:
            words = self._log.read_text(errors="replace").strip() or "it printed nothing"
            raise HostError(f"swtpm ended at once (status {self._process.returncode}): {words}")

    def end(self) -> None:
        """Wait until it ends, as it does after its QEMU; kill it if it does not."""
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
