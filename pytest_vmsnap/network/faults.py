"""Faults of a private network: what becomes of a frame between two machines.

Runs in the switch's process: imports nothing but the standard library.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Kind = Literal["partition", "cut", "delay", "loss", "duplicate", "reorder", "bandwidth"]

REORDER_SECONDS = 0.02  # for which a frame is held back, so that those after it overtake it
BACKLOG_SECONDS = 0.5  # of frames that wait for bandwidth; what is more is dropped, as a router does


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSpec:
    """One fault: what happens to frames from a machine to another.

    `links` are the directed pairs of machines, by place, that it applies to. `fraction` is the share of frames
    that are lost, duplicated or reordered, drawn with `seed`; `seconds` and `jitter` are those of a delay;
    `rate` is in bytes per second for each link.
    """

    kind: Kind
    links: frozenset[tuple[int, int]]
    fraction: float = 0.0
    seconds: float = 0.0
    jitter: float = 0.0
    rate: float = 0.0
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "kind": self.kind,
            "links": sorted(self.links),
            "fraction": self.fraction,
            "seconds": self.seconds,
            "jitter": self.jitter,
            "rate": self.rate,
            "seed": self.seed,
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> FaultSpec:
        """The fault that `as_dict` gave."""
        return cls(**{**plain, "links": frozenset((source, target) for source, target in plain["links"])})


@dataclass(slots=True)
class Fate:
    """What becomes of a frame on a link: the seconds after which each copy arrives, and notes for a capture."""

    delays: list[float] = field(default_factory=lambda: [0.0])
    notes: list[str] = field(default_factory=list)

    def drop(self, why: str) -> None:
        """Let no copy arrive."""
        self.delays.clear()
        self.notes.append(f"dropped: {why}")

    def delay(self, seconds: float) -> None:
        """Let each copy arrive later."""
        self.delays[:] = [before + seconds for before in self.delays]


class Fault:
    """A fault at work: its random numbers, and how far its links are booked."""

    def __init__(self, spec: FaultSpec) -> None:
        self.spec = spec
        self._random = random.Random(spec.seed)  # noqa: S311 - repeatable by intention
        self._free_at: dict[tuple[int, int], float] = {}  # when a link has sent what waits for bandwidth

    def apply(self, fate: Fate, link: tuple[int, int], size: int, now: float) -> None:
        """Change the `fate` of a frame of `size` bytes on `link` at `now` (monotonic clock)."""
        if link not in self.spec.links or not fate.delays:
            return
        match self.spec.kind:
            case "partition" | "cut":
                fate.drop(self.spec.kind)
            case "loss" if self._drawn():
                fate.drop("loss")
            case "duplicate" if self._drawn():
                fate.delays.append(fate.delays[-1])
                fate.notes.append("duplicated")
            case "reorder" if self._drawn():
                fate.delay(REORDER_SECONDS)
                fate.notes.append("reordered")
            case "delay":
                jitter = self._random.uniform(-self.spec.jitter, self.spec.jitter) if self.spec.jitter else 0.0
                seconds = max(0.0, self.spec.seconds + jitter)
                fate.delay(seconds)
                fate.notes.append(f"delayed by {seconds:.3f} s")
            case "bandwidth":
                self._queue(fate, link, size, now)

    def _queue(self, fate: Fate, link: tuple[int, int], size: int, now: float) -> None:
        starts = max(now, self._free_at.get(link, 0.0))
        if starts - now > BACKLOG_SECONDS:
            fate.drop("bandwidth")
            return
        self._free_at[link] = starts + size / self.spec.rate
        fate.delay(self._free_at[link] - now)

    def _drawn(self) -> bool:
        return self._random.random() < self.spec.fraction


def fate_of(faults: Iterable[Fault], link: tuple[int, int], size: int, now: float) -> Fate:
    """What becomes of a frame of `size` bytes on `link`, with all `faults` in their order."""
    fate = Fate()
    for fault in faults:
        fault.apply(fate, link, size, now)
    return fate
