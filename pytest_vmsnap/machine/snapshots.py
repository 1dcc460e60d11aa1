"""Snapshots of a machine within a test, and going back to them."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal, get_args

from pytest_vmsnap.errors import SpecError, VmsnapError
from pytest_vmsnap.host import is_stopped, remove_forward
from pytest_vmsnap.machine.network import Network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.host import Domain
    from pytest_vmsnap.pool import Allocation, Lease, Savepoint

RollbackOn = Literal["always", "error"]


class Snapshots(Network):
    """Snapshots of a machine within a test: disk, memory, processes and channel.

    They end with the test. A `Process` from before a revert is not restored: it raises `MachineReleased`.
    """

    _allocation: Allocation | None = None
    _savepoints: dict[str, Savepoint]
    _rollbacks: list[Savepoint]  # of the `with` blocks that are open
    _all_savepoints: list[Savepoint]  # all that are saved and not forgotten yet

    def snapshot(self, name: str) -> None:
        """Save the machine as it is under `name`; it keeps running. Replaces a snapshot with the same name.

        The machine stops for a moment; how long depends on how much changed, not on the size of its memory.
        Raises `SpecError` if `name` is empty or a state is being prepared, `ChannelError` if a command is still
        running after the option's timeout, `StoreFull` if there is no space.
        """
        __tracebackhide__ = True
        self._expect_usable()
        if not isinstance(name, str) or not name:
            raise SpecError(f"snapshot({name!r}): the name must be a string that is not empty")
        self._savepoints[name] = self._untouched = self._saved()
        self._forget_unneeded()

    def revert(self, name: str | None = None) -> None:
        """Go back to the snapshot `name`, or without a name, to the state that the test started with.

        The machine gets a new domain; forwarded ports keep their numbers. Raises `SpecError` if the snapshot
        does not exist, and `RevertError` if no clone can be made; then the machine stays as it was.
        """
        __tracebackhide__ = True
        self._expect_usable()
        allocation = self._held()
        if name is not None and name not in self._savepoints:
            there = ", ".join(map(repr, self._savepoints)) or "none"
            raise SpecError(f"this machine has no snapshot {name!r}; it has: {there}")
        savepoint = allocation.origin if name is None else self._savepoints[name]
        self._revert_to(savepoint)
        allocation.prepare_revert(savepoint)

    @contextmanager
    def rollback(self, *, on: RollbackOn = "always") -> Iterator[None]:
        """Go back at the end of the ``with`` block to how the machine was at its beginning.

        With ``on="error"``, only if the block raises. Raises as `snapshot` and `revert` do.
        """
        __tracebackhide__ = True
        if on not in get_args(RollbackOn):
            raise SpecError(f"rollback(on={on!r}): allowed are {', '.join(get_args(RollbackOn))}")
        untouched = self._untouched if not self._forwards else None  # others may use a forwarded port
        self._expect_usable()
        if untouched:
            self._held().prepare_revert(untouched)
        savepoint = untouched or self._saved()
        self._rollbacks.append(savepoint)
        try:
            yield
        except BaseException:
            self._revert_to(savepoint)
            raise
        else:
            if on == "always":
                self._revert_to(savepoint)
        finally:
            self._rollbacks.remove(savepoint)
            self._forget_unneeded()

    def _saved(self) -> Savepoint:
        __tracebackhide__ = True
        savepoint = self._held().save(timeout=self._deadlines.seconds(None))
        self._all_savepoints.append(savepoint)
        return savepoint

    def _forget_unneeded(self) -> None:
        """Forget savepoints that have no name, and that no rollback, open or next, goes back to."""
        needed = [*self._savepoints.values(), *self._rollbacks, self._untouched]
        gone = [
            savepoint for savepoint in self._all_savepoints if not any(savepoint is other for other in needed)
        ]
        if gone:
            self._all_savepoints = [savepoint for savepoint in self._all_savepoints if savepoint not in gone]
            self._held().forget(*gone)

    def _held(self) -> Allocation:
        __tracebackhide__ = True
        if self._allocation is None:
            raise SpecError(
                "snapshot, revert and rollback do not work while a state is being prepared",
                hint="define another state for this point: @pytest_vmsnap.state(parent=...)",
            )
        return self._allocation

    def _revert_to(self, savepoint: Savepoint) -> None:
        __tracebackhide__ = True
        old = self._backend.domain
        self._held().revert_to(savepoint, lambda lease: self._move(old, lease))
        self._untouched = savepoint

    def _move(self, old: Domain, lease: Lease) -> None:
        """Become the machine of `lease`, in place of `old`, and take over the forwarded ports."""
        self._channel.close()
        self._backend, self._channel = lease.clone, lease.channel
        self.generation += 1
        self._history.follow(self._backend, self._channel)
        forwards, self._forwards = self._forwards, []
        for forward in forwards:
            if (pid := old.pid()) and is_stopped(pid):
                old.destroy()  # the monitor of a stopped QEMU never answers
            with suppress(VmsnapError):  # `old` may have ended, and its ports with it
                remove_forward(old, address=self.address, forward=forward, netdev=self._netdev())
            self.forward_port(forward.guest_port, host_port=forward.host_port, protocol=forward.protocol)
