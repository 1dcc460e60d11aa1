"""Tests that start from the same state come together, and nothing is lost."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.selection.order import Unit, arranged

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

PARENTS = {"base": "", "a": "base", "b": "base", "aa": "a", "aaa": "aa"}


def lineage(state: str) -> list[str]:
    found = [state]
    while found[0] != "base":
        found.insert(0, PARENTS[found[0]])
    return found


def unit(state: str | None, place: Hashable = "one", kind: Hashable = "k", apart: Hashable = None) -> Unit:
    return Unit(place=place, state=state, kind=kind if state else None, apart=apart)


def states(units: Sequence[Unit]) -> list[str | None]:
    return [units[number].state for number in arranged(units, lineage)]


def test_tests_of_one_state_come_together_in_their_order() -> None:
    units = [unit(state) for state in ("base", "a", "base", "a", "b", "a")]
    assert arranged(units, lineage) == [0, 2, 1, 3, 5, 4]


def test_a_state_comes_before_those_that_are_made_from_it() -> None:
    assert states([unit(state) for state in ("aaa", "b", "a", "base", "aa")]) == ["base", "a", "aa", "aaa", "b"]


def test_another_kind_of_machine_is_another_group() -> None:
    units = [unit("a"), unit("a", kind="large"), unit("a"), unit("base", kind="large")]
    assert arranged(units, lineage) == [0, 2, 3, 1]


def test_a_test_without_a_machine_stays_with_its_neighbours() -> None:
    units = [unit(None), unit("a"), unit(None), unit("base"), unit("a")]
    assert arranged(units, lineage) == [3, 0, 1, 2, 4]


def test_a_file_without_machines_stays_where_it_is() -> None:
    units = [
        unit("base", "one"),
        unit(None, "two"),
        unit(None, "two"),
        unit("a", "three"),
        unit("base", "four"),
    ]
    assert arranged(units, lineage) == [0, 4, 1, 2, 3]


def test_groups_never_cross_what_is_kept_apart() -> None:
    units = [unit("base", apart=1), unit("a", apart=1), unit("base", apart=2), unit("a", apart=2)]
    assert arranged(units, lineage) == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_and_the_order_is_the_same_each_time(seed: int) -> None:
    chance = random.Random(seed)
    units = [
        unit(chance.choice([None, *PARENTS]), chance.choice("xyz"), chance.choice("km")) for _ in range(60)
    ]
    found = arranged(units, lineage)
    assert sorted(found) == list(range(60))
    assert found == arranged(units, lineage)
    groups = [(units[n].kind, units[n].state) for n in found if units[n].state]
    changes = sum(one != other for one, other in itertools.pairwise(groups))
    assert changes == len(set(groups)) - 1
