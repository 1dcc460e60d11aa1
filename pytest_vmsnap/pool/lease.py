"""A clone for a test, and how it is made ready."""

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

    from pytest_vmsnap.fork import DomainFactory, Snapshot
    from pytest_vmsnap.guest import Channel, ChannelFactory

log = logging.getLogger("pytest_vmsnap.pool")

ANSWER_SECONDS = 30.0
STILL_SECONDS = 1.0  # for a save that accepts running commands
CHECK_SECONDS = 5.0  # for a machine that has answered before


@dataclass(slots=True, kw_only=True, eq=False)
class Lease:
    """A clone that runs, answers and is repaired, and the channel to it.

    `nonce` is the proof that was left in it, empty without one.
    """

    clone: Clone
    channel: Channel
    nonce: str = ""

    def save(self, directory: Path, *, timeout: float) -> Snapshot:
        """Save the machine as it is into `directory`; it continues.

        Waits at most `timeout` seconds until no command runs. Raises `ChannelError` if one still runs then,
        `StoreFull`, `HostError`.
        """
        known = self.clone.snapshot.guest.reseeder
        with self.channel.idle(timeout=timeout):
            notes = self.channel.notes(known, timeout=timeout)
            return self.clone.save(directory, guest=notes)

    def save_as_is(self, directory: Path) -> Snapshot:
        """Save the machine as it is into `directory`, with the commands that run; it continues.

        Guest shells that run a command cannot be used in its clones. Raises `StoreFull`, `GuestGone`,
        `HostError`.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self.channel.idle(timeout=STILL_SECONDS))
            except ChannelError as error:
                log.info("%s is saved with its running commands: %s", self.clone.name, error.message)
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
        """End it and close its channel; logs errors. Takes up to 2 s if process 1 reaps slowly."""
        try:
            self._end()
        except Exception:
            log.exception("%s could not be ended", self.clone.name)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End it, for `ExitStack.push`.

        Raises what went wrong, unless something else did: the files that it was saved to are still in use then.
        """
        if kind:
            self.end()
        else:
            self._end()

    def _end(self) -> None:
        with ExitStack() as steps:  # each step runs, even if another raises
            steps.callback(self.clone.end)
            steps.callback(self.channel.close)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioner:
    """Makes clones ready for tests; `factor` scales its deadlines, with `proves_clean` it leaves nonces."""

    factory: DomainFactory
    channel_factory: ChannelFactory
    factor: float
    proves_clean: bool = False

    def make(self, snapshot: Snapshot) -> Lease:
        """Make a clean machine in the state of `snapshot`, running and repaired.

        Raises `RevertError` if that fails or the machine cannot be repaired, `StoreDamaged` if the snapshot is
        not what was saved.
        """
        started = time.monotonic()
        clone = Clone(self.factory, snapshot)
        with ExitStack() as undoing:
            undoing.callback(clone.end)
            channel = self.channel_factory.channel_to(clone, snapshot.image, snapshot.guest)
            undoing.callback(channel.close)
            try:
                channel.connect()
                clone.domain.resume()
                lease = Lease(clone=clone, channel=channel)
                self.repair(lease)
            except RevertError:
                raise
            except VmsnapError as error:
                raise RevertError(f"cannot make a clean machine: {error}") from error
            undoing.pop_all()
        log.info("%s is ready after %.3f s", clone.name, time.monotonic() - started)
        return lease

    def repair(self, lease: Lease) -> None:
        """Correct what is wrong in a machine right after it was resumed from a snapshot, such as its clock.

        Raises `ChannelError` if it does not answer, `RepairFailed` if it could not be repaired.
        """
        repair(lease.channel, lease.clone.snapshot.guest.reseeder, timeout=ANSWER_SECONDS * self.factor)

    def set_clock(self, lease: Lease) -> None:
        """Set the clock of a machine after a pause; raises `RepairFailed` if that fails."""
        set_clock(lease.channel, timeout=ANSWER_SECONDS * self.factor)

    def verify(self, lease: Lease, *, saved: str = "") -> None:
        """If `vmsnap_verify` asks for it, prove that a machine is clean before its hand-over.

        `saved` is the nonce that was in it when it was saved. Raises `RepairFailed` if it is not clean.
        """
        if self.proves_clean:
            seconds = ANSWER_SECONDS * self.factor
            lease.nonce = expect_clean(lease.channel, lease.clone.name, timeout=seconds, saved=saved)

    def check(self, lease: Lease) -> None:
        """Prove with one exchange that a running machine answers; raises `ChannelError` if it does not."""
        lease.channel.check(timeout=CHECK_SECONDS * self.factor)
