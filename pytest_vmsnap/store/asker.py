"""Who asks the store for entries, and what others who wait for it are told."""

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
class Asker:
    """A process that uses the store.

    `worker` is its name among those of the test run `run`, empty where it is alone. `since` is when the run
    began, in seconds since the epoch: what anybody has built after that is new enough for it, ``refresh`` or
    not.
    """

    worker: str = ""
    run: str = ""
    process: int = field(default_factory=os.getpid)
    since: float = field(default_factory=time.time)

    def sign(self, path: Path) -> None:
        """Leave in the file `path` who is at work."""
        write_whole(path, json.dumps(asdict(self)))

    def told_of(self, path: Path) -> str:
        """Who has signed `path`, in words; nobody may have, and who was killed has not removed it."""
        try:
            other = Asker(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return "another run"
        if not other.worker:
            return f"another run (process {other.process})"
        whose = "" if other.run == self.run else " of another run"
        return f"worker {other.worker}{whose} (process {other.process})"
