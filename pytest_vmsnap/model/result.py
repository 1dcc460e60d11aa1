"""What a command in the guest came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a command in the guest came to.

    `command` is what was asked for, as text; `returncode` the shell's status; `signal` the number of the
    signal that ended it where the shell reports one (a status above 128, POSIX 2.8.2: a script's own
    ``exit 137`` looks the same), else None; `stdout` and `stderr` the bytes as they came; `duration` in
    seconds, as the host saw it.
    """

    command: str
    returncode: int
    signal: int | None
    stdout: bytes
    stderr: bytes
    duration: float

    @property
    def text(self) -> str:
        """stdout as UTF-8, with errors replaced."""
        return self.stdout.decode(errors="replace")
