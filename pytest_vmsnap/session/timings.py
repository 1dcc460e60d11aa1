"""What building and reverting took: noted as it happens, and put together for a whole run."""

from __future__ import annotations

import statistics
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class StateUse:
    """A state that a process has asked for: `seconds` to build it, None where the store had it.

    `key` names it in the store: it tells states of one name for several machines apart.
    """

    state: str
    key: str
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revert:
    """A machine that a test has got: `seconds` that it waited, `ahead` if the machine had been made before.

    `state` is empty for a moment of the test's own (`Machine.revert`); `test` is its node id.
    """

    test: str
    state: str
    seconds: float
    ahead: bool


Record = StateUse | Revert
_KINDS: dict[str, type[StateUse] | type[Revert]] = {"state": StateUse, "revert": Revert}


def packed(record: Record) -> dict[str, Any]:
    """The record as plain data."""
    return {"kind": "state" if isinstance(record, StateUse) else "revert", **asdict(record)}


def unpacked(data: dict[str, Any]) -> Record:
    """The record that was `packed`."""
    fields = dict(data)
    return _KINDS[fields.pop("kind")](**fields)


class Timings:
    """The records of this process, and of the workers that report to it.

    `tell` is called with each record that is noted here. May be used from several threads.
    """

    def __init__(self, tell: Callable[[Record], None] | None = None) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._records: list[Record] = []
        self._fresh: list[Revert] = []
        self._test = ""

    def begin(self, test: str) -> None:
        """What comes now is of the test with this node id."""
        self._test = test

    def note_state(self, state: str, key: str, seconds: float | None) -> None:
        """This process uses a state: see `StateUse`."""
        self._note(StateUse(state=state, key=key, seconds=seconds))

    def note_revert(self, state: str, seconds: float, ahead: bool) -> None:
        """A machine was handed over: see `Revert`."""
        record = Revert(test=self._test, state=state, seconds=seconds, ahead=ahead)
        self._note(record)
        with self._lock:
            self._fresh.append(record)

    def news(self) -> list[Revert]:
        """The machines that were handed over in this process since this was asked last."""
        with self._lock:
            found, self._fresh = self._fresh, []
        return found

    def _note(self, record: Record) -> None:
        self.merge(record)
        if self._tell:
            self._tell(record)

    def merge(self, record: Record) -> None:
        """Add what happened in another."""
        with self._lock:
            self._records.append(record)

    @property
    def states(self) -> list[StateUse]:
        """Each state that was used, once: built, if any process has built it; otherwise from the store."""
        with self._lock:
            used = [record for record in self._records if isinstance(record, StateUse)]
        found: dict[str, StateUse] = {}
        for use in used:
            known = found.get(use.key)
            if known is None or known.seconds is None:
                found[use.key] = use
            elif use.seconds is not None:  # it was damaged, and built again
                found[use.key] = StateUse(state=use.state, key=use.key, seconds=known.seconds + use.seconds)
        return list(found.values())

    @property
    def reverts(self) -> list[Revert]:
        """Each machine that a test has got, in no order."""
        with self._lock:
            return [record for record in self._records if isinstance(record, Revert)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The figures of a whole run: counts, and seconds; `median` None where there was no revert."""

    built: int
    build_seconds: float
    reused: int
    reverts: int
    median: float | None
    ahead: int


def totals(timings: Timings) -> Totals | None:
    """The figures of a run, None where no machine was used."""
    states, reverts = timings.states, timings.reverts
    if not states and not reverts:
        return None
    built = [use.seconds for use in states if use.seconds is not None]
    waits = [revert.seconds for revert in reverts]
    return Totals(
        built=len(built),
        build_seconds=sum(built),
        reused=len(states) - len(built),
        reverts=len(reverts),
        median=statistics.median(waits) if waits else None,
        ahead=sum(revert.ahead for revert in reverts),
    )
