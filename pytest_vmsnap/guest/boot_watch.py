"""Watching a boot: if it cannot succeed, the wait for the guest ends."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import BootError, GuestGone, GuestHung
from pytest_vmsnap.guest.boot_failure import (
    MOST_KILLS,
    kills,
    lacks_memory,
    resets_itself,
    standstill,
    uefi_gave_up,
    without_kernel_lines,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vmsnap.guest.boot_failure import BootFailure
    from pytest_vmsnap.host import Domain

STILL_SECONDS = 3.0  # a guest that prints nothing for so long after a prompt waits for a person
SHOWN_CHARACTERS = 4 << 10  # at the end of the console, without the kernel's own lines
READ_BYTES = 256 << 10  # at the end of the console: more than ten of the kernel's out-of-memory reports


class BootWatch:
    """Looks at the serial console of the current domain, from where its boot began."""

    def __init__(self, domain: Callable[[], Domain]) -> None:
        self._domain = domain
        self._seen = ""
        self._since = 0.0  # monotonic clock
        self._suspect: BootFailure | None = None
        self._resets = domain().events.reboots

    @property
    def suspects(self) -> bool:
        """Whether the last look found what may be a dead end, but is not certain yet."""
        return self._suspect is not None

    def look(self) -> None:
        """Look once; takes next to no time.

        Raises `BootError` if the guest's boot has come to a dead end, `GuestGone` if QEMU has ended,
        `GuestHung` if it can be seen from outside that the guest hangs.
        """
        domain = self._domain()
        if domain.condition() == "stopped":
            raise GuestGone(f"{domain.name} has ended", console=domain.console_text())
        if trouble := domain.stall_reason():
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
        """Return a failure that is final, whatever the guest prints next."""
        if kills(text) >= MOST_KILLS:
            return lacks_memory(text, memory=domain.memory_mib())
        if found := uefi_gave_up(text):
            return found
        if domain.boot_mark:
            return None  # a requested reboot is a reset too
        return resets_itself(domain.events.reboots - self._resets)


@contextmanager
def watched(domain: Domain) -> Iterator[BootWatch]:
    """Watch the boot of `domain` in the block, during each wait for its guest."""
    watch = BootWatch(lambda: domain)
    domain.watches.append(watch.look)
    try:
        yield watch
    finally:
        domain.watches.remove(watch.look)


def _error(found: BootFailure, console: str) -> BootError:
    return BootError(f"the guest did not come up: {found.where}", hint=found.hint, console=console)
