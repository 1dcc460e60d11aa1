"""A clone for a test, and how it is made ready."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from pytest_vmsnap.errors import ChannelError, RevertError, StoreDamaged, VmsnapError
from pytest_vmsnap.fork import Clone, ClusterSnapshot
from pytest_vmsnap.guest import expect_clean, repair, set_clock
from pytest_vmsnap.host import LanPort
from pytest_vmsnap.network import address_of
from pytest_vmsnap.network.switch import Switch
from pytest_vmsnap.pool.cluster_lease import ClusterLease, for_each
from pytest_vmsnap.pool.teardown import Teardown

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.fork import DomainFactory, Saved, Snapshot
    from pytest_vmsnap.guest import Channel, ChannelFactory

log = logging.getLogger("pytest_vmsnap.pool")

ANSWER_SECONDS = 30.0
STILL_SECONDS = 1.0  # for a save that accepts running commands
CHECK_SECONDS = 5.0  # for a machine that has answered before


@dataclass(slots=True, kw_only=True, eq=False)
class Lease(Teardown):
    """A clone that runs, answers and is repaired, and the channel to it.

    `nonce` is the proof that was left in it, empty without one.
    """

    clone: Clone
    channel: Channel
    nonce: str = ""

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.clone.name

    @property
    def leases(self) -> dict[str, Lease]:
        """The machine, as `ClusterLease` has several."""
        return {"": self}

    def suspend(self) -> None:
        """Stop its processors."""
        self.clone.domain.suspend()

    def resume(self) -> None:
        """Let its processors run."""
        self.clone.domain.resume()

    def ping(self) -> None:
        """Ask for an answer ahead; `Provisioner.check` waits for it."""
        self.channel.ping()

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

    def finish(self) -> None:
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

    @overload
    def make(self, snapshot: Snapshot) -> Lease: ...

    @overload
    def make(self, snapshot: ClusterSnapshot) -> ClusterLease: ...

    @overload
    def make(self, snapshot: Saved) -> Lease | ClusterLease: ...

    def make(self, snapshot: Saved) -> Lease | ClusterLease:
        """Make a clean machine, or cluster, in the state of `snapshot`, running and repaired.

        Raises `RevertError` if that fails or a machine cannot be repaired, `StoreDamaged` if the snapshot is
        not what was saved.
        """
        started = time.monotonic()
        with ExitStack() as undoing:
            try:
                lease: Lease | ClusterLease
                if isinstance(snapshot, ClusterSnapshot):
                    lease = self._paused_cluster(snapshot, undoing)
                else:
                    lease = self._paused(snapshot)
                    undoing.callback(lease.end)
                lease.resume()
                self.repair(lease)
                log.info("%s is ready after %.3f s", lease.name, time.monotonic() - started)
            except (RevertError, StoreDamaged):
                raise
            except (VmsnapError, OSError) as error:
                raise RevertError(f"cannot make a clean machine: {error}") from error
            undoing.pop_all()
        return lease

    def _paused(self, snapshot: Snapshot, lan: LanPort | None = None) -> Lease:
        """A clone of `snapshot` that does not run yet, and the channel to it."""
        clone = Clone(self.factory, snapshot, lan=lan)
        with ExitStack() as undoing:
            undoing.callback(clone.end)
            channel = self.channel_factory.channel_to(clone, snapshot.image, snapshot.guest)
            undoing.callback(channel.close)
            channel.connect()
            undoing.pop_all()
        return Lease(clone=clone, channel=channel)

    def _paused_cluster(self, snapshot: ClusterSnapshot, undoing: ExitStack) -> ClusterLease:
        """Clones of a cluster's machines on a switch of their own; `undoing` ends them."""
        host = self.factory.host
        switch = Switch(
            tuple(snapshot.machines),
            directory=host.run.sockets,
            name=host.run.domain_name("lan").removeprefix(host.run.prefix),
            grant=host.permissions.allow_write,
        )
        undoing.callback(switch.close)
        ports = {
            name: LanPort(socket=switch.path_of(name), mac=address_of(name, place).mac)
            for place, name in enumerate(snapshot.machines)
        }

        def paused(name: str) -> Lease:
            lease = self._paused(snapshot.machines[name], ports[name])
            undoing.callback(lease.end)
            return lease

        leases = for_each(paused, snapshot.machines)
        if snapshot.faults:
            switch.set_faults(snapshot.faults)
        return ClusterLease(leases=dict(zip(snapshot.machines, leases, strict=True)), switch=switch)

    def repair(self, lease: Lease | ClusterLease) -> None:
        """Correct what is wrong in a machine right after it was resumed from a snapshot, such as its clock.

        Raises `ChannelError` if it does not answer, `RepairFailed` if it could not be repaired.
        """

        def repair_one(each: Lease) -> None:
            repair(each.channel, each.clone.snapshot.guest.reseeder, timeout=ANSWER_SECONDS * self.factor)

        for_each(repair_one, lease.leases.values())

    def set_clock(self, lease: Lease | ClusterLease) -> None:
        """Set the clock of a machine after a pause; raises `RepairFailed` if that fails."""
        for_each(
            lambda each: set_clock(each.channel, timeout=ANSWER_SECONDS * self.factor), lease.leases.values()
        )

    def verify(self, lease: Lease | ClusterLease, *, saved: str = "") -> None:
        """If `vmsnap_verify` asks for it, prove that a machine is clean before its hand-over.

        `saved` is the nonce that was in it when it was saved. Raises `RepairFailed` if it is not clean.
        """
        if not self.proves_clean:
            return
        members = list(lease.leases.values())
        for each, nonce in zip(members, saved.split() or [""] * len(members), strict=True):
            seconds = ANSWER_SECONDS * self.factor
            each.nonce = expect_clean(each.channel, each.clone.name, timeout=seconds, saved=nonce)

    def check(self, lease: Lease | ClusterLease) -> None:
        """Prove with one exchange that a running machine answers.

        Raises `ChannelError` if it does not, `SwitchGone` if a cluster's switch has ended.
        """
        if isinstance(lease, ClusterLease):
            lease.switch.expect_running()
        for each in lease.leases.values():
            each.channel.check(timeout=CHECK_SECONDS * self.factor)
