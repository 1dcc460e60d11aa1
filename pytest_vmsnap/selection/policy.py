"""Which machine a test gets: design §3's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pytest_vmsnap.model import Revert

Mark = Literal["fresh", "readonly"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Last:
    """The machine that the test before had, and what became of it.

    `fits`: it is of the state and spec that the next test wants; `well`: it still runs and answers;
    `failed`: a test that had it failed; `read_only`: all tests that had it promised to change nothing.
    """

    fits: bool
    well: bool
    failed: bool
    read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What the test gets: a ``"clean"`` machine that no test has had, or the ``"shared"`` one from before.

    `keep` tells whether a later test may get it from this one; if not, it ends with the test.
    """

    machine: Literal["clean", "shared"]
    keep: bool


def decide(policy: Revert, mark: Mark | None, last: Last | None) -> Grant:
    """What a test with `mark` gets under `policy`, where `last` is the machine of the test before, if any."""
    if mark == "fresh":
        return Grant(machine="clean", keep=policy != "always")
    if policy == "always" and mark is None:
        return Grant(machine="clean", keep=False)
    return Grant(machine="shared" if last and _may_share(policy, last) else "clean", keep=True)


def _may_share(policy: Revert, last: Last) -> bool:
    if not (last.fits and last.well):
        return False
    match policy:
        case "always":  # among read-only tests, until one of them fails
            return last.read_only and not last.failed
        case "on-failure":
            return not last.failed
        case "marked":
            return True
