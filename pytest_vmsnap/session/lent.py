"""A machine in the hands of a test, or of the tests of a wider scope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vmsnap.machine import Machine, Trail
    from pytest_vmsnap.pool import Tenancy


@dataclass(slots=True, kw_only=True, eq=False)
class Lent:
    """The `machine` that `fixture` gave to the node `owner`, the `trail` that it leaves, and its tenancy.

    `ends` tells whether it ends with its fixture.
    """

    fixture: str
    owner: str
    machine: Machine
    trail: Trail
    tenancy: Tenancy
    ends: bool = True
