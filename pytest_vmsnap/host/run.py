"""A run's own place: a directory that ends with it, and the names of its machines.

The directory is known to be in use by a lock that the run holds, so that whoever comes next can tell what
a killed run left behind from what a living one needs.
"""

from __future__ import annotations

import atexit
import itertools
import json
import logging
import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from pytest_vmsnap.host.processes import end_qemus

if TYPE_CHECKING:
    from pytest_vmsnap.host.uri import Mode

log = logging.getLogger("pytest_vmsnap.host")

SHORT_PATH = 32  # a socket's path ends at 108 bytes (unix(7)), and libvirt appends up to 70


def _short_directory() -> Path:
    place = tempfile.gettempdir()
    return Path(place if len(place) <= SHORT_PATH else "/tmp")  # noqa: S108 - mkdtemp follows


class Run:
    """One pytest process with machines: its id, its directory of data, its short directory for sockets.

    `data` and `sockets` have mode 0700 and are removed by `close`.
    """

    def __init__(self, runs: Path) -> None:
        self.id = secrets.token_hex(4)
        self._runs = runs
        self._lock = FileLock(runs / f"{self.id}.lock", mode=0o600)
        self._lock.acquire()
        self.data = runs / self.id
        self.data.mkdir(mode=0o700)
        self.sockets = Path(tempfile.mkdtemp(prefix=f"vmsnap-{self.id}-", dir=_short_directory()))
        (self.data / "run.json").write_text(json.dumps({"pid": os.getpid(), "sockets": str(self.sockets)}))
        self._numbers = itertools.count(1)
        atexit.register(self.close)

    @property
    def prefix(self) -> str:
        """What the names of this run's domains begin with."""
        return domain_prefix(self.id)

    def domain_name(self, label: str) -> str:
        """A name for a new domain of this run."""
        return f"{self.prefix}{label}-{next(self._numbers)}"

    def close(self) -> None:
        """Remove the run's directories; nothing happens the second time."""
        atexit.unregister(self.close)
        shutil.rmtree(self.sockets, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)
        if self._lock.is_locked:
            (self._runs / f"{self.id}.lock").unlink(missing_ok=True)
            self._lock.release()


def domain_prefix(run_id: str) -> str:
    """What the names of a run's domains begin with."""
    return f"vmsnap-{run_id}-"


def sweep(runs: Path) -> list[str]:
    """Remove what runs that were killed left behind; returns their ids.

    A run whose lock can be had is dead: its QEMUs are ended, its directories removed.
    """
    swept = []
    for data in [path for path in runs.iterdir() if path.is_dir()]:
        lock = FileLock(runs / f"{data.name}.lock", mode=0o600)
        try:
            lock.acquire(blocking=False)
        except (Timeout, OSError):
            continue
        try:
            _remove(data)
            swept.append(data.name)
        finally:
            (runs / f"{data.name}.lock").unlink(missing_ok=True)
            lock.release()
    return swept


def libvirt_logs() -> dict[Mode, Path]:
    """Where libvirt's daemons keep what QEMUs printed, a file for each domain (libvirt.org, "QEMU driver")."""
    import platformdirs

    return {
        "session": platformdirs.user_cache_path("libvirt") / "qemu" / "log",
        "system": Path("/var/log/libvirt/qemu"),
    }


def remove_logs(run_id: str) -> None:
    """Remove what libvirt's daemons keep of the QEMUs of a run that has ended, where this user may."""
    for place in libvirt_logs().values():
        for path in place.glob(f"{domain_prefix(run_id)}*.log"):
            with suppress(OSError):
                path.unlink()


def _remove(data: Path) -> None:
    if pids := end_qemus(domain_prefix(data.name)):
        log.info("run %s left QEMU processes %s: ended", data.name, pids)
    try:
        sockets = Path(json.loads((data / "run.json").read_text())["sockets"])
    except (OSError, ValueError, KeyError):  # killed before it had written this
        log.info("run %s left no record of its sockets", data.name)
    else:
        if sockets.name.startswith(f"vmsnap-{data.name}-"):
            shutil.rmtree(sockets, ignore_errors=True)
    remove_logs(data.name)
    shutil.rmtree(data, ignore_errors=True)
