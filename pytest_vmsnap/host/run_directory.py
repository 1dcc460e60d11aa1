"""The directories of a run, which exist as long as it does, and the names of its machines.

A run holds a lock as long as it uses its directory, so that the next run can tell what a killed run left
behind from what a live one needs.
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

SHORT_PATH = 32  # a socket's path has at most 108 bytes (unix(7)), and libvirt appends up to 70


def _short_directory() -> Path:
    place = tempfile.gettempdir()
    return Path(place if len(place) <= SHORT_PATH else "/tmp")  # noqa: S108 - mkdtemp follows


class Run:
    """One pytest process with machines: its id, its data directory, its socket directory with a short path.

    `data` and `sockets` have mode 0700; `close` removes them.
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
        """The prefix of the names of this run's domains."""
        return domain_prefix(self.id)

    def domain_name(self, label: str) -> str:
        """Return a name for a new domain of this run."""
        return f"{self.prefix}{label}-{next(self._numbers)}"

    def close(self) -> None:
        """Remove the run's directories; a second call does nothing."""
        atexit.unregister(self.close)
        shutil.rmtree(self.sockets, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)
        if self._lock.is_locked:
            (self._runs / f"{self.id}.lock").unlink(missing_ok=True)
            self._lock.release()


def domain_prefix(run_id: str) -> str:
    """The prefix of the names of a run's domains."""
    return f"vmsnap-{run_id}-"


def sweep(runs: Path) -> list[str]:
    """Remove what killed runs left behind; return their ids.

    If the lock of a run can be acquired, the run is dead: end its QEMUs and remove its directories.
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
    """The directories where libvirt's daemons log QEMU's output, by mode (libvirt.org, "QEMU driver")."""
    import platformdirs

    return {
        "session": platformdirs.user_cache_path("libvirt") / "qemu" / "log",
        "system": Path("/var/log/libvirt/qemu"),
    }


def remove_logs(run_id: str) -> None:
    """Remove the logs that libvirt's daemons keep of an ended run's QEMUs, if this user may."""
    for place in libvirt_logs().values():
        for path in place.glob(f"{domain_prefix(run_id)}*.log"):
            with suppress(OSError):
                path.unlink()


def _remove(data: Path) -> None:
    if pids := end_qemus(domain_prefix(data.name)):
        log.info("run %s left QEMU processes %s: ended", data.name, pids)
    try:
        sockets = Path(json.loads((data / "run.json").read_text())["sockets"])
    except (OSError, ValueError, KeyError):  # killed before it wrote this
        log.info("run %s left no record of its sockets", data.name)
    else:
        if sockets.name.startswith(f"vmsnap-{data.name}-"):
            shutil.rmtree(sockets, ignore_errors=True)
    remove_logs(data.name)
    shutil.rmtree(data, ignore_errors=True)
