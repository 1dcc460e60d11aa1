"""What to look at when a test has failed: its machine, and the commands that ran in it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_vmsnap.guest import OUTPUT_LIMIT
from pytest_vmsnap.machine.console import ConsoleMark, console_pieces, console_since, mark_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.guest import Channel
    from pytest_vmsnap.machine.backend import Backend

MOST_RECORDS = 500
MOST_BYTES = 4096  # of each stream: its end explains a failure


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRecord:
    """A command that ran: when it began (seconds since the epoch), how many seconds it took, how it ended.

    `outcome` is ``status N``, or what happened instead; `stdout` and `stderr` are the ends of its streams,
    `count` is how many times in a row it ran with the same outcome.
    """

    began: float
    seconds: float
    command: str
    outcome: str
    stdout: bytes = b""
    stderr: bytes = b""
    count: int = 1


class History:
    """The console and the commands of a machine, across reverts and reboots; reports call it `label`.

    `member` is its name in its cluster, if it is in one.
    """

    def __init__(self, label: str = "vm", *, member: str = "") -> None:
        self.label = label
        self.member = member
        self.backend: Backend | None = None
        self.channel: Channel | None = None
        self.since = time.time()
        self._mark: ConsoleMark | None = None
        self._records: deque[CommandRecord] = deque(maxlen=MOST_RECORDS)

    @property
    def title(self) -> str:
        """What messages call the machine: its domain's name, with its name in its cluster."""
        name = self.backend.name if self.backend else self.label
        return f"{self.member} ({name})" if self.member else name

    def follow(self, backend: Backend, channel: Channel | None, *, from_power_on: bool = False) -> None:
        """Follow the machine `backend` from now on; `channel` is None until the guest answers.

        The console counts from now, or from its beginning if `from_power_on` is true.
        """
        self.backend, self.channel = backend, channel
        self.since = 0.0 if from_power_on else time.time()
        self._mark = None if from_power_on else mark_of(backend)

    def begin(self) -> None:
        """Note that a test begins: forget the console output and the commands from before."""
        self.since = time.time()
        self._records.clear()
        if self.backend:
            self._mark = mark_of(self.backend)

    def note(self, record: CommandRecord) -> None:
        """Record a command that has ended or was given up."""
        record = replace(record, stdout=record.stdout[-MOST_BYTES:], stderr=record.stderr[-MOST_BYTES:])
        last = self._records[-1] if self._records else None
        if last and (last.command, last.outcome) == (record.command, record.outcome):  # a poll: only count it
            self._records[-1] = replace(record, began=last.began, count=last.count + 1)
        else:
            self._records.append(record)

    @property
    def records(self) -> tuple[CommandRecord, ...]:
        """The commands that ran, the oldest first."""
        return tuple(self._records)

    def console(self, limit: int = OUTPUT_LIMIT) -> str:
        """Return the last `limit` bytes that the guest printed on its serial console since the test began."""
        return console_since(self.backend, self._mark, limit=limit) if self.backend else ""

    def console_pieces(self, since: ConsoleMark | None) -> Iterator[tuple[ConsoleMark, str]]:
        """Yield the same in pieces, from `since` on (None: since the test began), each with its start."""
        if self.backend:
            yield from console_pieces(self.backend, since or self._mark or ConsoleMark(index=0, offset=0))
