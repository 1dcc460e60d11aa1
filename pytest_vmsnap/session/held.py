"""A machine that one test after another may have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.guest import listing

if TYPE_CHECKING:
    from pytest_vmsnap.guest import Listing
    from pytest_vmsnap.model import MachineSpec
    from pytest_vmsnap.pool import Tenancy

LISTING_SECONDS = 60.0


@dataclass(kw_only=True)
class Held:
    """A machine that the test `owner` has, or had: a later one may get it.

    `failed`: a test that had it failed; `read_only`: all tests that had it promised to change nothing.
    """

    tenancy: Tenancy
    spec: MachineSpec
    state: str
    owner: str
    failed: bool = False
    read_only: bool = True
    audited: bool = False  # what the test that has it now changed is known
    _listing: Listing | None = None  # what is in it, if nobody had it since

    def list_before(self, *, factor: float) -> None:
        """Note what is in the guest, before a test that promised to change nothing has it.

        Raises `ChannelError` where it cannot be listed.
        """
        self.audited = False
        if self._listing is None:
            self._listing = listing(self.tenancy.lease.channel, timeout=LISTING_SECONDS * factor)

    def changes(self, *, factor: float) -> list[str]:
        """What has changed since `list_before`, a line for each thing; raises as that does."""
        if (before := self._listing) is None:
            return []
        self._listing = listing(self.tenancy.lease.channel, timeout=LISTING_SECONDS * factor)
        self.audited = True
        return before.changes_to(self._listing)

    def forget_listing(self) -> None:
        """A test has it that may change what is in it."""
        self._listing = None
