"""The order of tests: those that start from the same state come together."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.selection.ahead import kind_of, state_of
from pytest_vmsnap.selection.markers import uses_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

WIDE = ("package", "module", "class")  # the scopes between a test and the session


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Tests that stay together, as they are: `place` is where they are from, `apart` what they are never mixed
    over.

    `kind` and `state` are of the machine that the first of them gets which gets one; None without any.
    """

    place: Hashable
    apart: Hashable = None
    kind: Hashable = None
    state: str | None = None


def arranged(units: Sequence[Unit], lineage: Callable[[str], Sequence[str]]) -> list[int]:
    """The numbers of `units` in the order in which they are to run.

    Those of one kind and state come together, stable within, at the place of the first; a state that others are
    made from, as `lineage` tells from the base down, comes before these. Units without a machine stay with
    their neighbours of the same place, and where there are none, where they are.
    """
    groups: dict[Hashable, list[int]] = {}
    for number, key in enumerate(_groups(units)):
        groups.setdefault(key, []).append(number)
    order: list[Hashable] = []
    for key in groups:
        for each in (*_above(key, groups, lineage), key):
            if each not in order:
                order.append(each)
    return [number for key in order for number in groups[key]]


def _groups(units: Sequence[Unit]) -> list[Hashable]:
    """Of each unit the group that it belongs to."""
    found: list[Hashable] = [None] * len(units)
    for _, numbers in groupby(range(len(units)), key=lambda number: (units[number].place, units[number].apart)):
        there = list(numbers)
        keys = [(units[n].apart, units[n].kind, units[n].state) for n in there if units[n].state is not None]
        last: Hashable = keys[0] if keys else ("alone", there[0])
        for number in there:
            unit = units[number]
            if unit.state is not None:
                last = (unit.apart, unit.kind, unit.state)
            found[number] = last
    return found


def _above(
    key: Hashable, groups: dict[Hashable, list[int]], lineage: Callable[[str], Sequence[str]]
) -> list[Hashable]:
    """The groups of the states that the state of the group `key` is made from, the first of them first."""
    if not isinstance(key, tuple) or len(key) != 3:
        return []
    apart, kind, state = key
    return [above for name in lineage(state) if name != state and (above := (apart, kind, name)) in groups]


def ordered(items: Sequence[pytest.Item], lineage: Callable[[str], Sequence[str]]) -> list[pytest.Item]:
    """The same tests in another order: as few changes of state as can be, and no wider fixture made twice."""
    wide = {node for item in items for node in _wide_nodes(item)}
    units: list[list[pytest.Item]] = []
    for _, together in groupby(items, key=lambda item: _outermost(item, wide) or item):
        units.append(list(together))
    described = [_described(unit) for unit in units]
    return [item for number in arranged(described, lineage) for item in units[number]]


def _described(unit: Sequence[pytest.Item]) -> Unit:
    first = unit[0]
    lent = next((item for item in unit if uses_machine(getattr(item, "fixturenames", ()))), None)
    return Unit(
        place=first.path,
        apart=_apart(first),
        kind=kind_of(lent) if lent else None,
        state=state_of(lent) if lent else None,
    )


def _outermost(item: pytest.Item, wide: set[Any]) -> Any:
    return next((node for node in item.listchain() if node in wide), None)


def _wide_nodes(item: pytest.Item) -> list[Any]:
    """The classes, modules and packages that the test uses a fixture of."""
    information = getattr(item, "_fixtureinfo", None)
    definitions = getattr(information, "name2fixturedefs", {})
    scopes = {each.scope for found in definitions.values() for each in found[-1:]}
    kinds: dict[str, Any] = {"package": pytest.Package, "module": pytest.Module, "class": pytest.Class}
    nodes = [item.getparent(kinds[scope]) for scope in WIDE if scope in scopes]
    return [node for node in nodes if node]


def _apart(item: pytest.Item) -> Hashable:
    """The parameters of the fixtures of the whole session: pytest has put those with the same together."""
    call = getattr(item, "callspec", None)
    scopes = getattr(call, "_arg2scope", {})
    indices = getattr(call, "indices", {})
    wide = [name for name, scope in scopes.items() if getattr(scope, "value", "") == "session"]
    return tuple(sorted((name, indices.get(name, 0)) for name in wide if name != "vm_spec"))
