"""Which entries a run uses: these are pinned, and stay while it lives.

A pin is a file in the run's own directory, which is removed with the run, or by the next run if it was killed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pytest_vmsnap.store.dependencies import EntryName

USES = "uses"


class Pins:
    """The pins of all runs in the directory `runs`; set `run` to this run's directory to keep its own."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self.run: Path | None = None

    def add(self, name: EntryName) -> None:
        """Pin the entry for this run."""
        if self.run:
            uses = self.run / USES
            uses.mkdir(exist_ok=True, mode=0o700)
            (uses / f"{name.kind}-{name.key}").touch(mode=0o600)

    def remove(self, name: EntryName) -> None:
        """Unpin the entry for this run."""
        if self.run:
            (self.run / USES / f"{name.kind}-{name.key}").unlink(missing_ok=True)

    def others(self, names: Iterable[EntryName]) -> list[str]:
        """The ids of other runs that use any of `names`."""
        files = [f"{name.kind}-{name.key}" for name in names]
        return [run.name for run in self._living() if any((run / USES / file).exists() for file in files)]

    def join(self, what: str) -> None:
        """Count this run, from now on, among those that share `what`."""
        if self.run:
            (self.run / what).touch(mode=0o600)

    def count_members(self, what: str) -> int:
        """How many runs share `what`, this one included."""
        runs = [*self._living(), *([self.run] if self.run else [])]
        return sum((run / what).exists() for run in runs)

    def is_used(self, name: EntryName) -> bool:
        """Whether any run uses the entry, this one included."""
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
