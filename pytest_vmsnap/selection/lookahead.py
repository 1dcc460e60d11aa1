"""Which machines the coming tests will ask for."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.selection.markers import requirements

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    import pytest

    from pytest_vmsnap.model import Revert

LOOKAHEAD = 200  # tests


def lookahead(
    items: Sequence[pytest.Item], following: pytest.Item | None, policy: Revert, *, last: pytest.Item
) -> Iterator[pytest.Item]:
    """The tests after `last` that will get a clean machine from the fixture ``vm`` or ``vm_cluster``, in order.

    `following` is the next test, which xdist knows better than `items`; None if `last` is the last. If the
    policy shares machines, the first test that shares one is included: it may need a clean one after all.
    """
    if following is None:
        return
    start = items.index(following) if following in items else len(items)
    before, shared_one = last, False
    for item in islice(items, start, start + LOOKAHEAD):
        fixtures = getattr(item, "fixturenames", ())
        if "vm_cluster" in fixtures:  # no other test ever has it
            yield item
            continue
        if "vm" not in fixtures:
            continue
        mark, previous = _mark(item), _mark(before)
        before = item
        shares = mark == previous == "readonly" if policy == "always" else mark != "fresh"
        if not shares:
            yield item
        elif policy != "always" and not shared_one:
            shared_one = True
            yield item


def machine_key(item: pytest.Item) -> Hashable:
    """What kind of machine a test gets: tests with equal recipes get machines of the same spec and state.

    It contains what is known before the fixtures run: the markers, and the parameter of ``vm_spec``.
    """
    return spec_key(item), requirements(item.iter_markers(), item.nodeid).state


def spec_key(item: pytest.Item) -> Hashable:
    """`machine_key` without the state: tests for which it is equal get machines of the same spec."""
    found = requirements(item.iter_markers(), item.nodeid)
    changes: dict[str, Any] = found.changes
    machines: dict[str, Any] = found.machines or {}
    parameters: dict[str, int] = getattr(getattr(item, "callspec", None), "indices", {})
    is_cluster = "vm_cluster" in getattr(item, "fixturenames", ())
    return repr(sorted(changes.items())), repr(list(machines.items())), is_cluster, parameters.get("vm_spec")


def _mark(item: pytest.Item) -> str | None:
    return requirements(item.iter_markers(), item.nodeid).mark
