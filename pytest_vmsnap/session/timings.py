"""How long building and reverting took: recorded during the run, and summed up at its end."""

from __future__ import annotations

import statistics
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap.store import SourceTitle


@dataclass(frozen=True, slots=True, kw_only=True)
class StateUse:
    """A state that a process used: `seconds` is the time to build it, None if it was in the store.

    `key` is its key in the store, which distinguishes states of the same name for different machines. `source`
    says where this run has it from, if it was not in the store.
    """

    state: str
    key: str
    seconds: float | None
    source: SourceTitle | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revert:
    """A machine that a test got: the `seconds` that it waited, and whether the machine was made `ahead`.

    `state` is empty if the test reverted to a snapshot of its own (`Machine.revert`); `test` is its node id.
    """

    test: str
    state: str
    seconds: float
    ahead: bool


Record = StateUse | Revert
_KINDS: dict[str, type[StateUse] | type[Revert]] = {"state": StateUse, "revert": Revert}


def packed(record: Record) -> dict[str, Any]:
    """`record` as plain data, for a worker to send."""
    return {"kind": "state" if isinstance(record, StateUse) else "revert", **asdict(record)}


def unpacked(data: dict[str, Any]) -> Record:
    """The record that `packed` turned into `data`."""
    fields = dict(data)
    return _KINDS[fields.pop("kind")](**fields)


class Timings:
    """The records of this process, and of the workers that report to it. Thread-safe.

    `on_record` is called with each record that this process makes.
    """

    def __init__(self, on_record: Callable[[Record], None] | None = None) -> None:
        self._tell = on_record
        self._lock = threading.Lock()
        self._records: list[Record] = []
        self._fresh: list[Revert] = []
        self._test = ""

    def begin(self, test: str) -> None:
        """Assign the following reverts to the test with this node id."""
        self._test = test

    def note_state(
        self, state: str, key: str, seconds: float | None, source: SourceTitle | None = None
    ) -> None:
        """Record that this process uses a state; see `StateUse`."""
        self._note(StateUse(state=state, key=key, seconds=seconds, source=source))

    def note_revert(self, state: str, seconds: float, ahead: bool) -> None:
        """Record that the current test got a machine; see `Revert`."""
        record = Revert(test=self._test, state=state, seconds=seconds, ahead=ahead)
        self._note(record)
        with self._lock:
            self._fresh.append(record)

    def take_new_reverts(self) -> list[Revert]:
        """The reverts that this process recorded since the last call."""
        with self._lock:
            found, self._fresh = self._fresh, []
        return found

    def _note(self, record: Record) -> None:
        self.merge(record)
        if self._tell:
            self._tell(record)

    def merge(self, record: Record) -> None:
        """Add a record of another process."""
        with self._lock:
            self._records.append(record)

    @property
    def states(self) -> list[StateUse]:
        """Each state that was used, once: as built if any process built it, then as fetched, then as found."""
        with self._lock:
            used = [record for record in self._records if isinstance(record, StateUse)]
        found: dict[str, StateUse] = {}
        for use in used:
            known = found.get(use.key)
            if known is None or (known.seconds is None and (use.seconds is not None or not known.source)):
                found[use.key] = use
            elif known.seconds is not None and use.seconds is not None:  # it was damaged, and rebuilt
                found[use.key] = StateUse(state=use.state, key=use.key, seconds=known.seconds + use.seconds)
        return list(found.values())

    @property
    def reverts(self) -> list[Revert]:
        """Each machine that a test got, in no particular order."""
        with self._lock:
            return [record for record in self._records if isinstance(record, Revert)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The figures of a whole run: counts, and times in seconds; `median` is None without reverts.

    States that were not built were in the store (`reused`), or came from the registry (`pulled`) or the system
    store (`shared`).
    """

    built: int
    build_seconds: float
    reused: int
    pulled: int
    shared: int
    reverts: int
    median: float | None
    ahead: int


def totals(timings: Timings) -> Totals | None:
    """The figures of a run; None if it used no machine."""
    states, reverts = timings.states, timings.reverts
    if not states and not reverts:
        return None
    built = [use.seconds for use in states if use.seconds is not None]
    found = [use.source for use in states if use.seconds is None]
    waits = [revert.seconds for revert in reverts]
    return Totals(
        built=len(built),
        build_seconds=sum(built),
        reused=found.count(None),
        pulled=found.count("registry"),
        shared=found.count("system store"),
        reverts=len(reverts),
        median=statistics.median(waits) if waits else None,
        ahead=sum(revert.ahead for revert in reverts),
    )
