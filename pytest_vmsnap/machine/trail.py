"""What is to be looked at when a test has failed: its machine as it is now, and what was run in it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_vmsnap.guest import OUTPUT_LIMIT
from pytest_vmsnap.machine.body import ConsoleMark, console_pieces, console_since, mark_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.guest import Channel
    from pytest_vmsnap.machine.body import Body

MOST_DEEDS = 500
MOST_BYTES = 4096  # of each stream: its end says why


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """A command that was run: when it began (seconds since the epoch), how long it took, how it ended.

    `outcome` is ``status N``, or what kept it from ending; `stdout` and `stderr` are the ends of its streams,
    `count` is how often it was run in a row with the same outcome.
    """

    began: float
    seconds: float
    command: str
    outcome: str
    stdout: bytes = b""
    stderr: bytes = b""
    count: int = 1


class Trail:
    """Follows a machine through reverts and reboots; `label` is what it is called in reports."""

    def __init__(self, label: str = "vm") -> None:
        self.label = label
        self.body: Body | None = None
        self.channel: Channel | None = None
        self.since = time.time()
        self._mark: ConsoleMark | None = None
        self._deeds: deque[Deed] = deque(maxlen=MOST_DEEDS)

    def follow(self, body: Body, channel: Channel | None, *, from_power_on: bool = False) -> None:
        """The machine is `body` from now on, reached by `channel` if it answers.

        Of its console counts what it shows from now, or all of it.
        """
        self.body, self.channel = body, channel
        self.since = 0.0 if from_power_on else time.time()
        self._mark = None if from_power_on else mark_of(body)

    def begin(self) -> None:
        """A test begins: what was shown and done before is of no interest to it."""
        self.since = time.time()
        self._deeds.clear()
        if self.body:
            self._mark = mark_of(self.body)

    def note(self, deed: Deed) -> None:
        """A command has ended, or was given up."""
        deed = replace(deed, stdout=deed.stdout[-MOST_BYTES:], stderr=deed.stderr[-MOST_BYTES:])
        last = self._deeds[-1] if self._deeds else None
        if last and (last.command, last.outcome) == (deed.command, deed.outcome):  # somebody polls
            self._deeds[-1] = replace(deed, began=last.began, count=last.count + 1)
        else:
            self._deeds.append(deed)

    @property
    def deeds(self) -> tuple[Deed, ...]:
        """What was run, the last of it last."""
        return tuple(self._deeds)

    def console(self, limit: int = OUTPUT_LIMIT) -> str:
        """What the guest has printed on its serial console since the test began, its last `limit` bytes."""
        return console_since(self.body, self._mark, limit=limit) if self.body else ""

    def console_pieces(self, since: ConsoleMark | None) -> Iterator[tuple[ConsoleMark, str]]:
        """The same in pieces, from `since` on (None: since the test began), each with where it begins."""
        if self.body:
            yield from console_pieces(self.body, since or self._mark or ConsoleMark(index=0, offset=0))
