"""Report each failure in full once, and in one line afterwards."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError, StateFailed, VmsnapError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """A failure that was reported in full, at `reported_at`."""

    kind: type[VmsnapError]
    summary: str
    reported_at: str


class Failures:
    """The failures of a run so far, by key: the spec and state that failed, or None for the engine."""

    def __init__(self) -> None:
        self._known: dict[Hashable, _Failure] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._known

    def clear(self) -> None:
        """Forget all failures, so that each is reported in full again."""
        self._known.clear()

    @contextmanager
    def report_once(self, key: Hashable, where: str) -> Iterator[None]:
        """Let an error of the ``with`` block pass in full the first time, and as one line afterwards.

        `where` is the test or the fixture that the error is reported at; later lines refer to it.
        """
        if failure := self._known.get(key):
            raise failure.kind(f"{failure.summary} (see {failure.reported_at})")
        try:
            yield
        except VmsnapError as error:
            if isinstance(error, HostError):
                error.point_to_doctor()
            kind = type(error) if isinstance(error, HostError) else StateFailed
            self._known[key] = _Failure(kind=kind, summary=str(error).splitlines()[0], reported_at=where)
            raise
