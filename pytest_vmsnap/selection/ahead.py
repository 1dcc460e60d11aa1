"""Which machines the tests to come will ask for."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.selection.markers import wishes

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    import pytest

    from pytest_vmsnap.model import Revert

LOOKAHEAD = 200  # tests


def ahead(
    items: Sequence[pytest.Item], following: pytest.Item | None, policy: Revert, *, last: pytest.Item
) -> Iterator[pytest.Item]:
    """The tests behind `last` that will get a clean machine by the fixture ``vm``, in their order.

    `following` is the next one, which xdist knows better than `items`; None where `last` is the last. Under
    the policies by which machines are shared, one is kept for who will need it.
    """
    if following is None:
        return
    start = items.index(following) if following in items else len(items)
    before, shared_one = last, False
    for item in islice(items, start, start + LOOKAHEAD):
        if "vm" not in getattr(item, "fixturenames", ()):
            continue
        mark, previous = _mark(item), _mark(before)
        before = item
        shares = mark == previous == "readonly" if policy == "always" else mark != "fresh"
        if not shares:
            yield item
        elif policy != "always" and not shared_one:
            shared_one = True
            yield item


def recipe(item: pytest.Item) -> Hashable:
    """Of what kind the machine of a test is: tests with the same get machines of the same spec and state.

    That is as far as it can be known before its fixtures are: its markers, and the parameter of ``vm_spec``.
    """
    return hardware(item), wishes(item.iter_markers(), item.nodeid).state


def hardware(item: pytest.Item) -> Hashable:
    """The part of `recipe` that is not the state: tests with the same get machines of the same spec."""
    changes: dict[str, Any] = wishes(item.iter_markers(), item.nodeid).changes
    parameters: dict[str, int] = getattr(getattr(item, "callspec", None), "indices", {})
    return repr(sorted(changes.items())), parameters.get("vm_spec")


def _mark(item: pytest.Item) -> str | None:
    return wishes(item.iter_markers(), item.nodeid).mark
