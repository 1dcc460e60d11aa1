"""Which machine a test gets, by `vmsnap_revert` and the markers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pytest_vmsnap.model import Revert

Mark = Literal["fresh", "readonly"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousMachine:
    """The machine of the previous test, and what became of it.

    `fits`: it has the state and spec that the next test wants; `well`: it still runs and answers;
    `failed`: a test that used it failed; `read_only`: all tests that used it promised to change nothing.
    """

    fits: bool
    well: bool
    failed: bool
    read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the test gets: a ``"clean"`` machine that no test has used, or the ``"shared"`` one from before.

    `keep` says whether a later test may get the machine too; if not, it ends with the test.
    """

    machine: Literal["clean", "shared"]
    keep: bool


def decide(policy: Revert, mark: Mark | None, last: PreviousMachine | None) -> Decision:
    """What a test with `mark` gets under `policy`; `last` is the machine of the previous test, if any."""
    if mark == "fresh":
        return Decision(machine="clean", keep=policy != "always")
    if policy == "always" and mark is None:
        return Decision(machine="clean", keep=False)
    return Decision(machine="shared" if last and _may_share(policy, last) else "clean", keep=True)


def _may_share(policy: Revert, last: PreviousMachine) -> bool:
    if not (last.fits and last.well):
        return False
    match policy:
        case "always":  # among read-only tests, until one of them fails
            return last.read_only and not last.failed
        case "on-failure":
            return not last.failed
        case "marked":
            return True
