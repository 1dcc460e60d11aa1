"""What `vmsnap doctor` found of one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

Status = Literal["ok", "warning", "failure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was `found` of the thing `name`, and the `advice` what to do, empty where there is none.

    A `failure` keeps machines from running; with a `warning` they run, slower or not for long.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Finding:
    """All is well."""
    return Finding(name=name, status="ok", found=found)


def not_asked(name: str, why: str, *, status: Status = "warning") -> Finding:
    """It could not be looked at: something that was looked at before is at fault, or it is not needed."""
    return Finding(name=name, status=status, found=f"not asked: {why}")


def worst(findings: Iterable[Finding]) -> Status:
    """The status of all together."""
    found = {finding.status for finding in findings}
    return "failure" if "failure" in found else "warning" if "warning" in found else "ok"


def size_text(mib: int) -> str:
    """So many MiB, as a person says it."""
    return f"{mib} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"
