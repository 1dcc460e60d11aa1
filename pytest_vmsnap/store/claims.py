"""Which entries a run uses: they stay while it lives.

A claim is a file in the run's own directory, which is removed with the run, or by the next one if it was
killed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pytest_vmsnap.store.needs import Name

USES = "uses"


class Claims:
    """The claims of all runs in the directory `runs`; ours are kept once `run` is our run's directory."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self.run: Path | None = None

    def add(self, name: Name) -> None:
        """Our run uses the entry from now on."""
        if self.run:
            uses = self.run / USES
            uses.mkdir(exist_ok=True, mode=0o700)
            (uses / f"{name.kind}-{name.key}").touch(mode=0o600)

    def remove(self, name: Name) -> None:
        """Our run uses the entry no more."""
        if self.run:
            (self.run / USES / f"{name.kind}-{name.key}").unlink(missing_ok=True)

    def others(self, names: Iterable[Name]) -> list[str]:
        """The ids of other runs that use one of `names`."""
        files = [f"{name.kind}-{name.key}" for name in names]
        return [run.name for run in self._living() if any((run / USES / file).exists() for file in files)]

    def take_part(self, what: str) -> None:
        """Our run takes its part of `what` all runs share, from now on."""
        if self.run:
            (self.run / what).touch(mode=0o600)

    def parties(self, what: str) -> int:
        """How many runs take a part of it, ours too."""
        runs = [*self._living(), *([self.run] if self.run else [])]
        return sum((run / what).exists() for run in runs)

    def is_used(self, name: Name) -> bool:
        """Whether any run uses the entry, ours too."""
        runs = [*self._living(), *([self.run] if self.run else [])]
        return any((run / USES / f"{name.kind}-{name.key}").exists() for run in runs)

    def _living(self) -> list[Path]:
        """The directories of other runs that have not ended."""
        return [run for run in self._runs.iterdir() if run.is_dir() and run != self.run and self._lives(run)]

    def _lives(self, run: Path) -> bool:
        lock = FileLock(self._runs / f"{run.name}.lock", mode=0o600)
        try:
            lock.acquire(blocking=False)
        except (Timeout, OSError):
            return True
        lock.release()
        return False
