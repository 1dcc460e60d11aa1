"""How long operations on a machine may take, and how much output is kept."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_vmsnap.guest import OUTPUT_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """The timeout of a `command` in seconds, and the `factor` by which every deadline is multiplied.

    `output` is how many bytes of a command's output, of a file or of a console are kept in memory.
    """

    command: float
    factor: float
    output: int = OUTPUT_LIMIT

    def seconds(self, timeout: float | None) -> float:
        """Return `timeout` (None: `command`) in seconds, times the factor."""
        return (self.command if timeout is None else timeout) * self.factor
