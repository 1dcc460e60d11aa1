"""One result of a check by `vmsnap doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

Status = Literal["ok", "warning", "failure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the check `name` `found`, and the `advice` on what to do, empty if there is none.

    With a `failure` machines cannot run; with a `warning` they run, but slower, or not for long.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Finding:
    """Return a finding that nothing is wrong."""
    return Finding(name=name, status="ok", found=found)


def not_checked(name: str, why: str, *, status: Status = "warning") -> Finding:
    """Return a finding for a skipped check: an earlier check failed, or it is not needed; `why` says which."""
    return Finding(name=name, status=status, found=f"not checked: {why}")


def worst(findings: Iterable[Finding]) -> Status:
    """The worst status of all `findings`; ``"ok"`` if there are none."""
    found = {finding.status for finding in findings}
    return "failure" if "failure" in found else "warning" if "warning" in found else "ok"


def size_text(mib: int) -> str:
    """A size in MiB as text: in MiB, or in GiB from 1024 MiB on."""
    return f"{mib} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"
