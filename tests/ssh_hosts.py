"""Hosts for pytest-xdist's `ssh=` gateways: SSH servers on addresses of the loopback interface."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .registry_server import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SSHD = "/usr/sbin/sshd"
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SshHost:
    """A host at `address`, with its `store`; `gateway` is how pytest-xdist reaches it."""

    address: str
    store: Path
    gateway: str


@contextmanager
def ssh_host(
    address: str,
    directory: Path,
    project: Path,
    environment: dict[str, str],
    *,
    user: str = "",
    python: str = sys.executable,
) -> Iterator[SshHost]:
    """An SSH server at `address`; its sessions have the variables in `environment`, and a store in `directory`.

    They belong to the current user, or to `user`, with that one's `python`, if the current user is root.
    They work in a copy of `project`: pytest-xdist sends pytest itself there.
    """
    user = user or getpass.getuser()
    directory.mkdir(mode=0o755)
    shutil.copytree(project, directory / "project")
    for path in (directory, *directory.rglob("*")):
        os.chown(path, *pwd.getpwnam(user)[2:4])
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
    port = free_port()
    variables = environment | {"VMSNAP_STORE": str(directory / "store")}
    lines = [
        f"ListenAddress {address}:{port}",
        f"HostKey {directory / 'host'}",
        f"AuthorizedKeysFile {directory / 'user.pub'}",
        "PermitRootLogin prohibit-password",
        *("PidFile none", "StrictModes no"),
        f"UsePAM {'yes' if os.geteuid() == 0 else 'no'}",  # without it, a user without a password is locked
        f"SetEnv {' '.join(f'{name}={text}' for name, text in variables.items())}",
    ]
    (directory / "config").write_text("\n".join(lines) + "\n")
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # noqa: PTH103 - as sshd(8) asks for it
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", directory / "config"], stderr=subprocess.DEVNULL)
    try:
        wait_for_port(address, port, process)
        known = f"-o UserKnownHostsFile={directory / 'known'} -o StrictHostKeyChecking=no -o LogLevel=ERROR"
        login = f"-p {port} -i {directory / 'user'} {known} {user}@{address}"
        gateway = f"ssh={login}//python={python}//chdir={directory / 'project'}"
        yield SshHost(address=address, store=directory / "store", gateway=gateway)
    finally:
        process.terminate()
        process.wait()


def wait_for_port(address: str, port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((address, port), timeout=5).close()
        except OSError:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        else:
            return
