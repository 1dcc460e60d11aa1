"""Which tests stay together on one of several workers: those of one state, or a part of them."""

from __future__ import annotations

from collections import defaultdict
from itertools import count
from typing import TYPE_CHECKING

from pytest_vmsnap.selection.placing import place

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    import pytest

    from pytest_vmsnap.selection.order import Place

GROUP_MARK = "xdist_group"


def grouped(items: Sequence[pytest.Item], *, workers: int) -> dict[str, str]:
    """The group of each test that has a machine, by node id; and of those that somebody gave one, that one."""
    found = {item.nodeid: group for item in items if (group := given(item))}
    free = [item for item in items if item.nodeid not in found]
    places = [place(item) for item in free]
    names: dict[str, Iterator[int]] = defaultdict(lambda: count(1))
    for part in parts(places, workers=workers):
        state = places[part[0]].state
        number = next(names[state])
        for index in part:
            found[free[index].nodeid] = f"vm-{state}" if number == 1 else f"vm-{state}-{number}"
    return found


def given(item: pytest.Item) -> str:
    """The group that somebody gave the test, as xdist names it; empty without one."""
    names = {
        str(mark.args[0] if mark.args else mark.kwargs.get("name", "default"))
        for mark in item.iter_markers(GROUP_MARK)
    }
    return "_".join(sorted(names))


def parts(places: Sequence[Place], *, workers: int) -> list[list[int]]:
    """The indexes of the tests that have a machine, in parts of one machine and state each.

    A state stays whole, so that who builds it is who needs it, and others build another meanwhile; but where
    it is more than a worker's share of all tests it is cut into parts of half a share, for a worker that is
    through with its own to take the next. The first part of each state is the largest: xdist hands out large
    groups first, and so all states before the rest of any. Tests that share a fixture of a class or module
    stay together.
    """
    states: dict[Hashable, list[int]] = defaultdict(list)
    for index, test in enumerate(places):
        if test.machine is not None:
            states[test.machine, test.state].append(index)
    share = sum(map(len, states.values())) / max(1, workers)
    found: list[list[int]] = []
    for indexes in states.values():
        found += [indexes] if len(indexes) <= share else _cut(places, indexes, max(1, round(share / 2)))
    return found


def _cut(places: Sequence[Place], indexes: list[int], size: int) -> list[list[int]]:
    """`indexes` in parts of about `size`, the first one larger by one."""
    found: list[list[int]] = [[]]
    for index in indexes:
        full = len(found[-1]) >= size + (len(found) == 1)
        if full and not _hold_together(places[found[-1][-1]], places[index]):
            found.append([])
        found[-1].append(index)
    return found


def _hold_together(one: Place, other: Place) -> bool:
    return bool(set(one.holds) & set(other.holds))
