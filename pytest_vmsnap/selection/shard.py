"""Which tests of a suite one of several jobs runs (``vmsnap_shard``)."""

from __future__ import annotations

from collections import defaultdict
from statistics import mean
from typing import TYPE_CHECKING

from pytest_vmsnap.selection.groups import hold_together
from pytest_vmsnap.selection.item_position import position_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import pytest

    from pytest_vmsnap.model import Shard
    from pytest_vmsnap.selection.order import Position


def in_shard(
    items: Sequence[pytest.Item], shard: Shard, seconds: Mapping[str, float]
) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """The tests that `shard` runs, in their order, and the others; over all shards each test runs once.

    `seconds` are recorded times by node id; a test without one counts as the mean of the others. The order in
    which the tests come does not matter, so that each job may shuffle them on its own.
    """
    sequence = sorted(items, key=lambda item: item.nodeid)
    known = [seconds[item.nodeid] for item in sequence if item.nodeid in seconds]
    usual = mean(known) if known else 1.0
    weights = [seconds.get(item.nodeid, usual) for item in sequence]
    assigned = assign([position_of(item) for item in sequence], weights, shard.count)
    chosen = {id(item) for item, number in zip(sequence, assigned, strict=True) if number == shard.index - 1}
    return [item for item in items if id(item) in chosen], [item for item in items if id(item) not in chosen]


def assign(positions: Sequence[Position], weights: Sequence[float], count: int) -> list[int]:
    """The number of the shard, from 0 to `count` - 1, of each test; `weights` are their times.

    Tests of one machine and state stay together, as do those of a file without a machine, so that a state is
    needed by few shards. What weighs more than a shard's share is cut, except between tests that share a
    fixture of a class or module. The heaviest part goes first, to the shard that has least.
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, test in enumerate(positions):
        groups[test.file if test.machine is None else (test.machine, test.state)].append(index)
    share = sum(weights) / count
    parts = [part for indexes in groups.values() for part in _cut(positions, weights, indexes, share)]
    loads = [0.0] * count
    found = [0] * len(positions)
    for part in sorted(parts, key=lambda each: -sum(weights[index] for index in each)):
        least = loads.index(min(loads))
        for index in part:
            found[index] = least
            loads[least] += weights[index]
    return found


def _cut(
    positions: Sequence[Position], weights: Sequence[float], indexes: list[int], share: float
) -> list[list[int]]:
    """Cut `indexes` into as few parts as a `share` allows, of about the same weight."""
    whole = sum(weights[index] for index in indexes)
    number = max(1, -int(-whole // share)) if share else 1
    found: list[list[int]] = [[]]
    before = 0.0
    for index in indexes:
        # the middle of a test decides to which part it belongs
        full = before + weights[index] / 2 > whole / number * len(found)
        if found[-1] and full and not hold_together(positions[found[-1][-1]], positions[index]):
            found.append([])
        found[-1].append(index)
        before += weights[index]
    return found
