"""Snapshots of a machine within a test, and the way back."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal, get_args

from pytest_vmsnap.errors import SpecError, VmsnapError
from pytest_vmsnap.host import is_stopped, remove_forward
from pytest_vmsnap.machine.network import Network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.host import Domain
    from pytest_vmsnap.pool import Lease, Moment, Tenancy

When = Literal["always", "error"]


class Snapshots(Network):
    """A machine's moments that the test can go back to: disk, memory, processes and channel.

    They end with the test. What is not reset is what the test itself holds: a `Process` from before raises.
    """

    _tenancy: Tenancy | None = None
    _moments: dict[str, Moment]
    _rollbacks: list[Moment]  # those that have begun
    _kept_moments: list[Moment]  # every one that was saved and is kept

    def snapshot(self, name: str) -> None:
        """Save the machine as it is under `name`, and let it go on; a second one of a name takes its place.

        It stands still for a moment that grows with what has changed, not with its memory. Raises `SpecError`
        where a machine cannot be saved (while the base state is prepared), `ChannelError` where a command
        still runs after the option's time-out, `StoreFull` where there is no space.
        """
        __tracebackhide__ = True
        self._expect_usable()
        if not isinstance(name, str) or not name:
            raise SpecError(f"snapshot({name!r}): a name is a text that is not empty")
        self._moments[name] = self._untouched = self._saved()
        self._forget_unneeded()

    def revert(self, name: str | None = None) -> None:
        """Go back to the snapshot `name`, or without a name to the state that the test began with.

        It is another domain from then on, and the same machine for the test: what was forwarded is again at the
        same ports. Raises `SpecError` where there is no such snapshot, `RevertError` where no machine can be
        given; it is as it was then.
        """
        __tracebackhide__ = True
        self._expect_usable()
        tenancy = self._held()
        if name is not None and name not in self._moments:
            there = ", ".join(map(repr, self._moments)) or "none"
            raise SpecError(f"there is no snapshot {name!r} of this machine; there are: {there}")
        moment = tenancy.origin if name is None else self._moments[name]
        self._go_back(moment)
        tenancy.expect_return(moment)

    @contextmanager
    def rollback(self, *, on: When = "always") -> Iterator[None]:
        """Go back at the end of the ``with`` block to what the machine was at its beginning.

        With ``on="error"`` only where the block raises. Raises as `snapshot` and `revert` do.
        """
        __tracebackhide__ = True
        if on not in get_args(When):
            raise SpecError(f"rollback(on={on!r}): allowed are {', '.join(get_args(When))}")
        untouched = self._untouched if not self._forwards else None  # others reach it by these
        self._expect_usable()
        if untouched:
            self._held().expect_return(untouched)
        moment = untouched or self._saved()
        self._rollbacks.append(moment)
        try:
            yield
        except BaseException:
            self._go_back(moment)
            raise
        else:
            if on == "always":
                self._go_back(moment)
        finally:
            self._rollbacks.remove(moment)
            self._forget_unneeded()

    def _saved(self) -> Moment:
        __tracebackhide__ = True
        moment = self._held().save(timeout=self._deadlines.seconds(None))
        self._kept_moments.append(moment)
        return moment

    def _forget_unneeded(self) -> None:
        """What has no name, and is the beginning of no rollback: nor can be of the next."""
        needed = [*self._moments.values(), *self._rollbacks, self._untouched]
        gone = [moment for moment in self._kept_moments if not any(moment is other for other in needed)]
        if gone:
            self._kept_moments = [moment for moment in self._kept_moments if moment not in gone]
            self._held().forget(*gone)

    def _held(self) -> Tenancy:
        __tracebackhide__ = True
        if self._tenancy is None:
            raise SpecError(
                "while a state is prepared its machine takes no snapshots",
                hint="make a state of it: @pytest_vmsnap.state(parent=...)",
            )
        return self._tenancy

    def _go_back(self, moment: Moment) -> None:
        __tracebackhide__ = True
        old = self._body.domain
        self._held().go_back(moment, lambda lease: self._move(old, lease))
        self._untouched = moment

    def _move(self, old: Domain, lease: Lease) -> None:
        """Be the machine of `lease` from now on, in place of `old`."""
        self._channel.close()
        self._body, self._channel = lease.clone, lease.channel
        self.era += 1
        self._trail.follow(self._body, self._channel)
        forwards, self._forwards = self._forwards, []
        for forward in forwards:
            if (pid := old.pid()) and is_stopped(pid):
                old.destroy()  # its monitor would never answer
            with suppress(VmsnapError):  # it may have ended, and its ports with it
                remove_forward(old, address=self.address, forward=forward, netdev=self._netdev())
            self.forward_port(forward.guest_port, host_port=forward.host_port, protocol=forward.protocol)
