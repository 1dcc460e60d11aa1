"""A clone that a test may have, and how one is made ready."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ChannelError, RevertError, VmsnapError
from pytest_vmsnap.fork import Clone
from pytest_vmsnap.guest import expect_clean, repair, set_clock

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.fork import Forge, Snapshot
    from pytest_vmsnap.guest import Access, Channel

log = logging.getLogger("pytest_vmsnap.pool")

ANSWER_SECONDS = 30.0
STILL_SECONDS = 1.0  # for who saves a machine whatever it does
CHECK_SECONDS = 5.0  # for one that has answered before


@dataclass(slots=True, kw_only=True, eq=False)
class Lease:
    """A clone that runs, answers, and is repaired; and the channel to it.

    `nonce` is what is left in it as a proof, if any is.
    """

    clone: Clone
    channel: Channel
    nonce: str = ""

    def save(self, directory: Path, *, timeout: float) -> Snapshot:
        """Save the machine as it is, in `directory`; it goes on. `timeout` in seconds, until no command runs.

        Raises `ChannelError` where one still runs then, `StoreFull`, `HostError`.
        """
        known = self.clone.snapshot.guest.reseeder
        with self.channel.still(timeout=timeout):
            notes = self.channel.notes(known, timeout=timeout)
            return self.clone.save(directory, guest=notes)

    def save_as_is(self, directory: Path) -> Snapshot:
        """Save the machine as it is, in `directory`, commands that run included; it goes on.

        The shells that run one are of no use in its clones. Raises `StoreFull`, `GuestGone`, `HostError`.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self.channel.still(timeout=STILL_SECONDS))
            except ChannelError as error:
                log.info("%s is saved with what runs in it: %s", self.clone.name, error.message)
            guest = self.channel.known_notes(self.clone.snapshot.guest.reseeder)
            return self.clone.save(directory, guest=guest)

    def is_well(self) -> bool:
        """Whether it still runs and answers."""
        if self.clone.domain.condition() != "running":
            return False
        try:
            self.channel.open(timeout=ANSWER_SECONDS)
        except VmsnapError as error:
            log.info("%s is not well: %s", self.clone.name, error)
            return False
        return True

    def end(self) -> None:
        """End it, with all that it has. Takes up to 2 s where process 1 reaps slowly."""
        try:
            with ExitStack() as steps:  # each is taken, whatever another raises
                steps.callback(self.clone.end)
                steps.callback(self.channel.close)
        except Exception:
            log.exception("%s could not be ended", self.clone.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """Makes clones ready for tests; `factor` scales its deadlines, `proves_clean` leaves nonces."""

    forge: Forge
    access: Access
    factor: float
    proves_clean: bool = False

    def make(self, snapshot: Snapshot) -> Lease:
        """A clean machine in the state of `snapshot`, running and repaired.

        Raises `RevertError` where none can be given; a machine that could not be repaired is not handed out.
        """
        started = time.monotonic()
        clone = Clone(self.forge, snapshot)
        with ExitStack() as undoing:
            undoing.callback(clone.end)
            channel = self.access.channel_to(clone, snapshot.image, snapshot.guest)
            undoing.callback(channel.close)
            try:
                channel.connect()
                clone.domain.resume()
                lease = Lease(clone=clone, channel=channel)
                self.repair(lease)
            except RevertError:
                raise
            except VmsnapError as error:
                raise RevertError(f"a clean machine could not be made: {error}") from error
            undoing.pop_all()
        log.info("%s is ready after %.3f s", clone.name, time.monotonic() - started)
        return lease

    def repair(self, lease: Lease) -> None:
        """Put right what a saved moment gets wrong in a machine that was resumed.

        Raises `ChannelError` where it does not answer, `RepairFailed` where it could not be repaired.
        """
        repair(lease.channel, lease.clone.snapshot.guest.reseeder, timeout=ANSWER_SECONDS * self.factor)

    def set_clock(self, lease: Lease) -> None:
        """Put right what a pause gets wrong; raises `RepairFailed` where that cannot be done."""
        set_clock(lease.channel, timeout=ANSWER_SECONDS * self.factor)

    def verify(self, lease: Lease, *, saved: str = "") -> None:
        """Prove of a machine that is handed over what `vmsnap_verify` asks for; raises `RepairFailed`.

        `saved` is the nonce that was in it when it was saved.
        """
        if self.proves_clean:
            seconds = ANSWER_SECONDS * self.factor
            lease.nonce = expect_clean(lease.channel, lease.clone.name, timeout=seconds, saved=saved)

    def check(self, lease: Lease) -> None:
        """Prove by one exchange that a machine that runs answers; raises `ChannelError` where it does not."""
        lease.channel.check(timeout=CHECK_SECONDS * self.factor)
