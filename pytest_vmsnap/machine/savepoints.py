"""Snapshots within a test, and going back to them: the same for a machine and for a cluster."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

from pytest_vmsnap.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.machine.deadlines import Deadlines
    from pytest_vmsnap.pool import Allocation, Savepoint

RollbackOn = Literal["always", "error"]


class Savepoints:
    """What a test saves of the machine, or cluster, that it has, to go back to it. It ends with the test."""

    WHAT = "machine"

    _allocation: Allocation[Any] | None = None
    _deadlines: Deadlines
    _savepoints: dict[str, Savepoint]
    _rollbacks: list[Savepoint]  # of the `with` blocks that are open
    _all_savepoints: list[Savepoint]  # all that are saved and not forgotten yet
    _untouched: Savepoint | None

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
            raise SpecError(f"this {self.WHAT} has no snapshot {name!r}; it has: {there}")
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
        untouched = self.unchanged_since()
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

    def _held(self) -> Allocation[Any]:
        __tracebackhide__ = True
        if self._allocation is None:
            raise self._refusal()
        return self._allocation

    def _refusal(self) -> SpecError:
        """The error of one that cannot be saved by the test."""
        return SpecError(
            "snapshot, revert and rollback do not work while a state is being prepared",
            hint="define another state for this point: @pytest_vmsnap.state(parent=...)",
        )

    def _revert_to(self, savepoint: Savepoint) -> None:
        __tracebackhide__ = True
        self._held().revert_to(savepoint, self.move_to)
        self._untouched = savepoint

    def _expect_usable(self) -> None:
        """Raise `MachineReleased` if the test that it belonged to has ended."""
        raise NotImplementedError

    def unchanged_since(self) -> Savepoint | None:
        """The savepoint that it still is as it was at; None if it was used since."""
        raise NotImplementedError

    def move_to(self, lease: Any) -> None:
        """Go on with `lease`, in place of what there was."""
        raise NotImplementedError
