"""What broke is told in full once, and in a line from then on."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError, StateFailed, VmsnapError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """What broke before, and where it was told in full."""

    kind: type[VmsnapError]
    summary: str
    told: str


class Failures:
    """What broke so far, by what it belongs to."""

    def __init__(self) -> None:
        self._known: dict[Hashable, _Failure] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._known

    def clear(self) -> None:
        """Let everything be told in full again."""
        self._known.clear()

    @contextmanager
    def told_once(self, key: Hashable, where: str) -> Iterator[None]:
        """Let an error of the body be told in full the first time, `where`, and in a line from then on."""
        if failure := self._known.get(key):
            raise failure.kind(f"{failure.summary} (see {failure.told})")
        try:
            yield
        except VmsnapError as error:
            if isinstance(error, HostError):
                error.point_to_doctor()
            kind = type(error) if isinstance(error, HostError) else StateFailed
            self._known[key] = _Failure(kind=kind, summary=str(error).splitlines()[0], told=where)
            raise
