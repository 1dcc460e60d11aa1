"""The order of tests: those of one state one after another."""

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
class Place:
    """What the place of a test in the order depends on.

    `machine` is of what kind its machine is but for the `state`, None where it has none. `within` are the
    collectors around it (packages, module, classes), `holds` those of them whose own fixtures it uses, each
    with the parameters that these are made for. `parameters` are those of the session's fixtures, each with the
    name first.
    """

    file: Hashable
    machine: Hashable | None = None
    state: str = BASE
    within: tuple[Hashable, ...] = ()
    holds: tuple[tuple[Hashable, Parameters], ...] = ()
    parameters: Parameters = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """What tests that run one after another have in common; `file` where they are of one without machines."""

    parameters: Parameters
    machine: Hashable | None = None
    state: str = BASE
    file: Hashable | None = None

    @property
    def block(self) -> Hashable:
        """What comes together before all else: the same parameters of the session's fixtures, if any."""
        return self.parameters or self


def order(places: Sequence[Place], ancestors: Ancestors) -> list[int]:
    """The indexes of `places` in the order in which the tests are to run.

    Tests of the same machine and state come together, as they came. These groups come as the first test of
    each came, but behind those of the `ancestors` of their state. A test without a machine goes with the one
    before it in its file that has one (else with the next); a file without machines is a group of its own.

    No fixture of a package, module or class is made more often than in the order given: the tests for which it
    was made once move as one, with the first of them that has a machine. Tests with the same parameters of the
    session's fixtures come together before all else.
    """
    units = _attached(places, _units(places))
    groups = [_group(places, unit) for unit in units]
    firsts = [_first(places, unit) for unit in units]
    blocks = _ranks(zip([group.block for group in groups], firsts, strict=True), ancestors)
    within = _ranks(zip(groups, firsts, strict=True), ancestors)
    keys = {
        index: (blocks[group.block], within[group], index)
        for unit, group in zip(units, groups, strict=True)
        for index in unit
    }
    return sorted(keys, key=keys.__getitem__)


def _units(places: Sequence[Place]) -> list[list[int]]:
    """Which tests move as one: those for which a fixture is made once in the order given.

    It lives as long as tests of its collector follow each other, and have the parameters that it was made for.
    Where they come back to that later, it is made anew anyway.
    """
    leaders = list(range(len(places)))
    users: dict[tuple[Hashable, int, Parameters], int] = {}
    runs: dict[Hashable, int] = defaultdict(int)
    before: tuple[Hashable, ...] = ()
    for index, test in enumerate(places):
        for node in test.within:
            runs[node] += node not in before
        before = test.within
        for node, parameters in test.holds:
            other = _leader(leaders, users.setdefault((node, runs[node], parameters), index))
            leaders[_leader(leaders, index)] = other
    units: dict[int, list[int]] = defaultdict(list)
    for index in range(len(places)):
        units[_leader(leaders, index)].append(index)
    return list(units.values())


def _leader(leaders: list[int], index: int) -> int:
    while leaders[index] != index:
        index = leaders[index] = leaders[leaders[index]]
    return index


def _attached(places: Sequence[Place], units: list[list[int]]) -> list[list[int]]:
    """`units`, each without a machine joined to one of its file that has one, and has its parameters."""
    hosts: dict[tuple[Hashable, Parameters], list[tuple[int, list[int]]]] = defaultdict(list)
    lonely: list[list[int]] = []
    joined: list[list[int]] = []
    for unit in units:
        machines = [index for index in unit if places[index].machine is not None]
        for index in machines:
            for parameters in {_NONE, _parameters(places, unit)}:
                hosts[places[index].file, parameters].append((index, unit))
        (joined if machines else lonely).append(unit)
    hosted: list[tuple[list[int], list[int]]] = []
    for unit in lonely:
        near = sorted(hosts.get((places[unit[0]].file, _parameters(places, unit)), []))
        if near:
            nearest = near[max(bisect_left(near, (unit[0],)) - 1, 0)]
            hosted.append((nearest[1], unit))
        else:
            joined.append(unit)
    for host, unit in hosted:  # last, for a host's own first test is what it is found by
        host += unit
    return [sorted(unit) for unit in joined]


def _parameters(places: Sequence[Place], unit: list[int]) -> Parameters:
    """The parameters of all tests of a unit; where one has several values, what no other unit has."""
    found = frozenset(chain.from_iterable(places[index].parameters for index in unit))
    return found if len({name for name, *_ in found}) == len(found) else frozenset([("a unit", unit[0])])


def _group(places: Sequence[Place], unit: list[int]) -> _Group:
    parameters = _parameters(places, unit)
    for test in (places[index] for index in unit):
        if test.machine is not None:
            return _Group(parameters=parameters, machine=test.machine, state=test.state)
    return _Group(parameters=parameters, file=places[unit[0]].file)


def _first(places: Sequence[Place], unit: list[int]) -> int:
    """The test by which a unit is placed: one with parameters, for those with the same belong together."""
    for says in (lambda test: test.parameters, lambda test: test.machine is not None):
        for index in unit:
            if says(places[index]):
                return index
    return unit[0]


def _ranks(firsts: Iterable[tuple[Hashable, int]], ancestors: Ancestors) -> dict[Hashable, int]:
    """The rank of each key: as its first test came, but a group behind those of its state's ancestors."""
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
