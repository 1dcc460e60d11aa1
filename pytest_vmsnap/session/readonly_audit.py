"""Check that tests marked ``vm_readonly`` change nothing (``vmsnap_verify=audit``)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ChannelError, PromiseBroken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vmsnap.session.reusable_machine import ReusableMachine


class ReadonlyAudit:
    """Audits the tests that run now; `factor` returns the factor that scales deadlines."""

    def __init__(self, factor: Callable[[], float]) -> None:
        self._factor = factor
        self._machines: dict[str, ReusableMachine] = {}  # by the test that promised to change nothing

    @contextmanager
    def during(self, test: str, reusable: ReusableMachine, *, is_wanted: bool) -> Iterator[None]:
        """Audit `test` on the machine `reusable` if `is_wanted`.

        Raises `ChannelError` if the guest's files and processes cannot be listed.
        """
        if not is_wanted:
            reusable.forget_inventory()
            yield
            return
        self._machines[test] = reusable
        try:
            reusable.list_before(factor=self._factor())
            yield
        finally:
            del self._machines[test]
            if not reusable.audited:
                reusable.forget_inventory()  # it skipped or failed: do not blame the next test for its changes

    def expect_unchanged(self, test: str) -> None:
        """Raise `PromiseBroken` if `test` is audited and changed its machine."""
        reusable = self._machines.get(test)
        if reusable is None:
            return
        try:
            changes = reusable.changes(factor=self._factor())
        except ChannelError as error:
            changes = [f"the machine no longer answers: {error.message}"]
        if changes:
            raise PromiseBroken("this test is marked vm_readonly, but it changed its machine:", changes=changes)
