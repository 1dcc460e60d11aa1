"""End a machine or a cluster; errors are raised, or only logged."""

from __future__ import annotations

import logging

log = logging.getLogger("pytest_vmsnap.pool")


class Teardown:
    """Something that a run ends: a machine, or a cluster."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """What messages call it."""
        raise NotImplementedError

    def finish(self) -> None:
        """End it; raises what went wrong. Takes up to 2 s if process 1 reaps slowly."""
        raise NotImplementedError

    def end(self) -> None:
        """End it; logs errors."""
        try:
            self.finish()
        except Exception:
            log.exception("%s could not be ended", self.name)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End it, for `ExitStack.push`.

        Raises what went wrong, unless something else did: files that it was saved to are still in use then.
        """
        if kind:
            self.end()
        else:
            self.finish()
