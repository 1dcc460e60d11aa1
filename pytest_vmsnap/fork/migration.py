"""Save and load device state with QEMU's migration, which leaves the memory where it is.

QEMU, "Migration framework": the capability ``x-ignore-shared`` skips memory that is shared with a file.
QEMU ≥ 8.2 writes to ``file:PATH``; older versions get a descriptor (``getfd``, ``fd:NAME``), which 11.1
refuses for a regular file. The sandbox that libvirt sets forbids ``exec:``.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError
from pytest_vmsnap.host import IGNORE_SHARED

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.host import Capabilities, Domain

POLL_SECONDS = 0.002


def save_devices(domain: Domain, path: Path, *, capabilities: Capabilities, timeout: float) -> None:
    """Write the device state of a paused domain to `path`; its memory stays in its file.

    Raises `HostError` if that fails or takes longer than `timeout` seconds.
    """
    _transfer(
        domain, "migrate", path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, capabilities=capabilities, timeout=timeout
    )


def load_devices(domain: Domain, path: Path, *, capabilities: Capabilities, timeout: float) -> None:
    """Load the device state at `path` into a domain that waits for it (``-incoming defer``).

    Raises `HostError` if that fails or takes longer than `timeout` seconds.
    """
    _transfer(domain, "migrate-incoming", path, os.O_RDONLY, capabilities=capabilities, timeout=timeout)


def _transfer(
    domain: Domain, command: str, path: Path, flags: int, *, capabilities: Capabilities, timeout: float
) -> None:
    wanted = [{"capability": IGNORE_SHARED, "state": True}]
    domain.qmp("migrate-set-capabilities", capabilities=wanted)
    if capabilities.file_address:
        domain.qmp(command, uri=f"file:{path}")
    else:
        descriptor = os.open(path, flags, 0o600)
        try:
            domain.qmp("getfd", files=[descriptor], fdname="vmsnap-state")
            domain.qmp(command, uri="fd:vmsnap-state")
        finally:
            os.close(descriptor)
    _wait(domain, command, timeout=timeout)


def _wait(domain: Domain, command: str, *, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        answer = domain.qmp("query-migrate")
        status = answer.get("status")
        if status == "completed":
            return
        if status in ("failed", "failing", "cancelled"):
            raise HostError(f"QEMU's {command} {status}: {answer.get('error-desc', 'no reason given')}")
        if time.monotonic() > deadline:
            raise HostError(f"QEMU's {command} is still {status} after {timeout:.0f} s")
        time.sleep(POLL_SECONDS)  # libvirt passes on no event for the end of a migration
