"""The order of tests: those of one state run one after another."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from pytest_vmsnap.states import BASE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Ancestors = Callable[[str], Iterable[str]]

Parameters = frozenset[tuple[Hashable, ...]]

_NONE: Parameters = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """What the position of a test in the order depends on.

    `machine` is the kind of its machine apart from the `state`, None if it has none. `within` are the
    collectors around it (packages, module, classes). `fixture_owners` are those of them whose own fixtures it
    uses, each with the parameters that these fixtures are made for. `parameters` are those of session fixtures,
    each with the fixture's name first.
    """

    file: Hashable
    machine: Hashable | None = None
    state: str = BASE
    within: tuple[Hashable, ...] = ()
    fixture_owners: tuple[tuple[Hashable, Parameters], ...] = ()
    parameters: Parameters = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """What tests that run one after another have in common; `file` is set only if they have no machine."""

    parameters: Parameters
    machine: Hashable | None = None
    state: str = BASE
    file: Hashable | None = None

    @property
    def block(self) -> Hashable:
        """What is kept together before all else: the parameters of session fixtures, if any, else the group."""
        return self.parameters or self


def order(positions: Sequence[Position], ancestors: Ancestors) -> list[int]:
    """The indexes of `positions` in the order in which the tests run.

    Tests with the same machine and state form a group and keep their order. The groups are in the order of
    their first tests, but after the groups of their state's `ancestors`. A test without a machine stays with
    the previous test of its file that has one (else with the next); a file without machines is its own group.

    No fixture of a package, module or class is made more often than in the given order: the tests for which it
    is made once move together, with the first of them that has a machine. Tests with the same parameters of
    session fixtures stay together before all else.
    """
    units = _attached(positions, _units(positions))
    groups = [_group(positions, unit) for unit in units]
    firsts = [_first(positions, unit) for unit in units]
    blocks = _ranks(zip([group.block for group in groups], firsts, strict=True), ancestors)
    within = _ranks(zip(groups, firsts, strict=True), ancestors)
    keys = {
        index: (blocks[group.block], within[group], index)
        for unit, group in zip(units, groups, strict=True)
        for index in unit
    }
    return sorted(keys, key=keys.__getitem__)


def _units(positions: Sequence[Position]) -> list[list[int]]:
    """Which tests move together: those for which a fixture is made once in the given order.

    A fixture lives while the tests that follow each other are in its collector and have its parameters. If
    tests come back to the collector later, pytest makes the fixture again anyway.
    """
    leaders = list(range(len(positions)))
    users: dict[tuple[Hashable, int, Parameters], int] = {}
    runs: dict[Hashable, int] = defaultdict(int)
    before: tuple[Hashable, ...] = ()
    for index, test in enumerate(positions):
        for node in test.within:
            runs[node] += node not in before
        before = test.within
        for node, parameters in test.fixture_owners:
            other = _leader(leaders, users.setdefault((node, runs[node], parameters), index))
            leaders[_leader(leaders, index)] = other
    units: dict[int, list[int]] = defaultdict(list)
    for index in range(len(positions)):
        units[_leader(leaders, index)].append(index)
    return list(units.values())


def _leader(leaders: list[int], index: int) -> int:
    while leaders[index] != index:
        index = leaders[index] = leaders[leaders[index]]
    return index


def _attached(positions: Sequence[Position], units: list[list[int]]) -> list[list[int]]:
    """`units`, with each unit without a machine joined to one of its file that has one, and its parameters."""
    hosts: dict[tuple[Hashable, Parameters], list[tuple[int, list[int]]]] = defaultdict(list)
    lonely: list[list[int]] = []
    joined: list[list[int]] = []
    for unit in units:
        machines = [index for index in unit if positions[index].machine is not None]
        for index in machines:
            for parameters in {_NONE, _parameters(positions, unit)}:
                hosts[positions[index].file, parameters].append((index, unit))
        (joined if machines else lonely).append(unit)
    hosted: list[tuple[list[int], list[int]]] = []
    for unit in lonely:
        near = sorted(hosts.get((positions[unit[0]].file, _parameters(positions, unit)), []))
        if near:
            nearest = near[max(bisect_left(near, (unit[0],)) - 1, 0)]
            hosted.append((nearest[1], unit))
        else:
            joined.append(unit)
    for host, unit in hosted:  # last: a host is found by its own tests only
        host += unit
    return [sorted(unit) for unit in joined]


def _parameters(positions: Sequence[Position], unit: list[int]) -> Parameters:
    """The parameters of all tests of a unit; if one has several values, a value that no other unit has."""
    found = frozenset(chain.from_iterable(positions[index].parameters for index in unit))
    return found if len({name for name, *_ in found}) == len(found) else frozenset([("a unit", unit[0])])


def _group(positions: Sequence[Position], unit: list[int]) -> _Group:
    parameters = _parameters(positions, unit)
    for test in (positions[index] for index in unit):
        if test.machine is not None:
            return _Group(parameters=parameters, machine=test.machine, state=test.state)
    return _Group(parameters=parameters, file=positions[unit[0]].file)


def _first(positions: Sequence[Position], unit: list[int]) -> int:
    """The test that places a unit: the first with parameters, else the first with a machine, else the first."""
    for says in (lambda test: test.parameters, lambda test: test.machine is not None):
        for index in unit:
            if says(positions[index]):
                return index
    return unit[0]


def _ranks(firsts: Iterable[tuple[Hashable, int]], ancestors: Ancestors) -> dict[Hashable, int]:
    """The rank of each key: by its first test, but a group comes after those of its state's ancestors."""
    earliest: dict[Hashable, int] = {}
    for key, index in firsts:
        earliest[key] = min(earliest.get(key, index), index)
    ranked: dict[Hashable, None] = {}
    for key in sorted(earliest, key=earliest.__getitem__):
        above = ancestors(key.state) if isinstance(key, _Group) else ()
        for parent in (replace(key, state=state) for state in above):  # type: ignore[type-var]
            if parent in earliest:
                ranked.setdefault(parent)
        ranked.setdefault(key)
    return {key: rank for rank, key in enumerate(ranked)}
