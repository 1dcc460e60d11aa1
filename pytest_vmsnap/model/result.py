"""The result of a command in the guest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a command in the guest.

    `command` is the command as text; `returncode` is the shell's exit status; `signal` is the number of the
    signal that ended the command if the shell reports one (a status above 128, POSIX 2.8.2: a script's own
    ``exit 137`` looks the same), else None; `stdout` and `stderr` are the raw bytes; `duration` is in seconds,
    measured on the host.
    """

    command: str
    returncode: int
    signal: int | None
    stdout: bytes
    stderr: bytes
    duration: float

    @property
    def text(self) -> str:
        """stdout, decoded as UTF-8; invalid bytes are replaced."""
        return self.stdout.decode(errors="replace")
