"""Which process uses the store, and how it is described to others that wait for it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from pytest_vmsnap.host import write_whole

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LockOwner:
    """A process that uses the store.

    `worker` is its name in the test run `run`, empty without pytest-xdist. `since` is when the run began, in
    seconds since the epoch: entries built after that are new enough for it, even with ``refresh``.
    """

    worker: str = ""
    run: str = ""
    process: int = field(default_factory=os.getpid)
    since: float = field(default_factory=time.time)

    def sign(self, path: Path) -> None:
        """Write this owner to the file `path`."""
        write_whole(path, json.dumps(asdict(self)))

    def describe_owner(self, path: Path) -> str:
        """Describe the owner that signed `path`; the file may be missing, or left by a killed process."""
        try:
            other = LockOwner(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return "another run"
        if not other.worker:
            return f"another run (process {other.process})"
        whose = "" if other.run == self.run else " of another run"
        return f"worker {other.worker}{whose} (process {other.process})"
