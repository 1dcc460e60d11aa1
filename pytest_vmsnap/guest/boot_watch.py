"""Watching a guest that boots: a boot that cannot succeed ends the wait for it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import BootError, GuestHung
from pytest_vmsnap.guest.boot_failure import (
    MOST_KILLS,
    kills,
    lacks_memory,
    resets_itself,
    standstill,
    without_kernel_lines,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vmsnap.guest.boot_failure import BootFailure
    from pytest_vmsnap.host import Domain

STILL_SECONDS = 3.0  # what prints nothing more for that long behind a prompt waits for a person
SHOWN_CHARACTERS = 4 << 10  # of the console's end, which the kernel's own lines do not count in
READ_BYTES = 256 << 10  # of the console's end: more than ten of the kernel's reports on its memory


class BootWatch:
    """Looks at the serial console of the domain that is there now, from where its boot began."""

    def __init__(self, domain: Callable[[], Domain]) -> None:
        self._domain = domain
        self._seen = ""
        self._since = 0.0  # monotonic clock
        self._suspect: BootFailure | None = None
        self._resets = domain().events.reboots

    @property
    def suspects(self) -> bool:
        """Whether the last look found a dead end that may still turn out to be none."""
        return self._suspect is not None

    def look(self) -> None:
        """Look once; takes no time worth mentioning.

        Raises `BootError` where the guest's boot has come to a dead end, `GuestHung` where it can be seen from
        outside that it stands still.
        """
        domain = self._domain()
        if trouble := domain.trouble():
            raise GuestHung(trouble, console=domain.console_text())
        text = domain.console_end(READ_BYTES)
        if found := self._certain(domain, text):
            raise _error(found, text)
        now = time.monotonic()
        self._suspect = standstill(text)
        shown = without_kernel_lines(text)[-SHOWN_CHARACTERS:]
        if shown != self._seen:
            self._seen, self._since = shown, now
        elif self._suspect and now - self._since >= STILL_SECONDS:
            raise _error(self._suspect, text)

    def _certain(self, domain: Domain, text: str) -> BootFailure | None:
        """What has failed for good, whatever comes next."""
        if kills(text) >= MOST_KILLS:
            return lacks_memory(text, memory=domain.memory_mib())
        if domain.boot_mark:
            return None  # a reboot that was asked for is a reset too
        return resets_itself(domain.events.reboots - self._resets)


@contextmanager
def watched(domain: Domain) -> Iterator[BootWatch]:
    """Have the boot of `domain` watched while answers of its guest are waited for."""
    watch = BootWatch(lambda: domain)
    domain.watches.append(watch.look)
    try:
        yield watch
    finally:
        domain.watches.remove(watch.look)


def _error(found: BootFailure, console: str) -> BootError:
    return BootError(f"the guest did not come up: {found.where}", hint=found.hint, console=console)
