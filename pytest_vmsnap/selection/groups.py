"""Which tests run on the same worker of pytest-xdist: those of one state, or a part of them."""

from __future__ import annotations

from collections import defaultdict
from itertools import count
from typing import TYPE_CHECKING

from pytest_vmsnap.selection.item_position import position_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    import pytest

    from pytest_vmsnap.selection.order import Position

GROUP_MARK = "xdist_group"


def grouped(items: Sequence[pytest.Item], *, workers: int) -> dict[str, str]:
    """The xdist group of each test, by node id: the one from its marker, else, with a machine, one by state."""
    found = {item.nodeid: group for item in items if (group := marked_group(item))}
    free = [item for item in items if item.nodeid not in found]
    positions = [position_of(item) for item in free]
    names: dict[str, Iterator[int]] = defaultdict(lambda: count(1))
    for part in parts(positions, workers=workers):
        state = positions[part[0]].state
        number = next(names[state])
        for index in part:
            found[free[index].nodeid] = f"vm-{state}" if number == 1 else f"vm-{state}-{number}"
    return found


def marked_group(item: pytest.Item) -> str:
    """The group from the test's marker ``xdist_group``, as xdist names it; empty without one."""
    names = {
        str(mark.args[0] if mark.args else mark.kwargs.get("name", "default"))
        for mark in item.iter_markers(GROUP_MARK)
    }
    return "_".join(sorted(names))


def parts(positions: Sequence[Position], *, workers: int) -> list[list[int]]:
    """The indexes of the tests that have a machine, in parts of one machine and state each.

    A state stays in one part, so the worker that needs it builds it, and other workers build others meanwhile.
    A state with more than a worker's share of these tests is cut into parts of half a share, so that a worker
    that has finished can take the next part. The first part of each state is the largest: xdist hands out large
    groups first, and so begins every state before the rest of any. Tests that share a fixture of a class or
    module stay together.
    """
    states: dict[Hashable, list[int]] = defaultdict(list)
    for index, test in enumerate(positions):
        if test.machine is not None:
            states[test.machine, test.state].append(index)
    share = sum(map(len, states.values())) / max(1, workers)
    found: list[list[int]] = []
    for indexes in states.values():
        found += [indexes] if len(indexes) <= share else _cut(positions, indexes, max(1, round(share / 2)))
    return found


def _cut(positions: Sequence[Position], indexes: list[int], size: int) -> list[list[int]]:
    """Cut `indexes` into parts of about `size`; the first one is larger by one."""
    found: list[list[int]] = [[]]
    for index in indexes:
        full = len(found[-1]) >= size + (len(found) == 1)
        if full and not hold_together(positions[found[-1][-1]], positions[index]):
            found.append([])
        found[-1].append(index)
    return found


def hold_together(one: Position, other: Position) -> bool:
    """Whether two tests share a fixture of a class, a module or a package."""
    return bool(set(one.fixture_owners) & set(other.fixture_owners))
