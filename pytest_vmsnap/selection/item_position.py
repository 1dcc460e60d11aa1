"""The positions of pytest's tests, and the order in which they run."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.selection.lookahead import spec_key
from pytest_vmsnap.selection.markers import requirements, uses_machine
from pytest_vmsnap.selection.order import Position, order
from pytest_vmsnap.states import BASE

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from pytest_vmsnap.selection.order import Parameters
    from pytest_vmsnap.states import StateTree


def in_order(items: Sequence[pytest.Item], tree: StateTree) -> list[pytest.Item]:
    """`items` in the order in which they run: see `order`."""
    return [items[index] for index in order([position_of(item) for item in items], tree.ancestors)]


def position_of(item: pytest.Item) -> Position:
    """What the position of a test depends on, as far as pytest knows it before the test runs.

    Fixtures that a test gets from ``request.getfixturevalue`` are not included.
    """
    has_machine = uses_machine(getattr(item, "fixturenames", ()))
    parameters = frozenset(_session_parameters(item))
    return Position(
        file=item.path,
        machine=spec_key(item) if has_machine else None,
        state=requirements(item.iter_markers(), item.nodeid).state if has_machine else BASE,
        within=tuple(item.listchain()[:-1]),
        fixture_owners=tuple(dict.fromkeys(_holders(item, parameters))),
        parameters=parameters,
    )


def _fixtures(item: pytest.Item) -> Iterator[tuple[str, Any]]:
    """Name and definition of each fixture that a test uses, as pytest records them; also overridden ones."""
    definitions = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    for name, found in definitions.items():
        for definition in found:
            yield name, definition


def _holders(item: pytest.Item, parameters: Parameters) -> Iterator[tuple[pytest.Collector, Parameters]]:
    """The collectors that a fixture of the test ends with, and those of `parameters` that it is made for."""
    for name, definition in _fixtures(item):
        scope = getattr(definition, "scope", "function")
        if scope == "class":
            holder: pytest.Collector | None = item.getparent(pytest.Class)
        elif scope == "module":
            holder = item.getparent(pytest.Module)
        else:
            holder = _package(item, definition) if scope == "package" else None
        if holder:
            needed = _needed(item, name)
            yield holder, frozenset(parameter for parameter in parameters if parameter[0] in needed)


def _needed(item: pytest.Item, name: str) -> set[str]:
    """The names of the fixtures that the fixture `name` depends on, directly or not, and its own."""
    arguments: dict[str, set[str]] = defaultdict(set)
    for each, definition in _fixtures(item):
        arguments[each].update(getattr(definition, "argnames", ()))
    found: set[str] = set()
    rest = [name]
    while rest:
        if (each := rest.pop()) not in found:
            found.add(each)
            rest += arguments[each]
    return found


def _package(item: pytest.Item, definition: Any) -> pytest.Package | None:
    """The package in which the fixture is defined; None if there is none: then it lives for the session."""
    for node in item.listchain():
        if isinstance(node, pytest.Package) and node.nodeid == getattr(definition, "baseid", None):
            return node
    return None


def _session_parameters(item: pytest.Item) -> Iterator[tuple[Hashable, ...]]:
    callspec = getattr(item, "callspec", None)
    wide = {name for name, definition in _fixtures(item) if getattr(definition, "scope", None) == "session"}
    for name, value in getattr(callspec, "params", {}).items():
        if name in wide:
            yield name, type(value).__qualname__, _comparable(value, getattr(callspec, "indices", {}).get(name))


def _comparable(value: object, index: int | None) -> Hashable:
    """The value, as pytest compares it; if it cannot be hashed, its index among the parameters."""
    try:
        hash(value)
    except TypeError:
        return index
    return value
