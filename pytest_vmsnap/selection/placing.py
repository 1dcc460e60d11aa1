"""Where pytest's tests stand, and in which order they are to run."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.selection.ahead import hardware
from pytest_vmsnap.selection.markers import uses_machine, wishes
from pytest_vmsnap.selection.order import Place, order
from pytest_vmsnap.states import BASE

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from pytest_vmsnap.selection.order import Parameters
    from pytest_vmsnap.states import StateTree


def arranged(items: Sequence[pytest.Item], tree: StateTree) -> list[pytest.Item]:
    """`items` in the order in which they are to run: see `order`."""
    return [items[index] for index in order([place(item) for item in items], tree.ancestors)]


def place(item: pytest.Item) -> Place:
    """What the place of a test depends on, as far as pytest tells before it runs.

    Fixtures that a test gets by ``request.getfixturevalue`` are not seen.
    """
    has_machine = uses_machine(getattr(item, "fixturenames", ()))
    parameters = frozenset(_session_parameters(item))
    return Place(
        file=item.path,
        machine=hardware(item) if has_machine else None,
        state=wishes(item.iter_markers(), item.nodeid).state if has_machine else BASE,
        within=tuple(item.listchain()[:-1]),
        holds=tuple(dict.fromkeys(_holders(item, parameters))),
        parameters=parameters,
    )


def _fixtures(item: pytest.Item) -> Iterator[tuple[str, Any]]:
    """Name and definition of each fixture that a test uses, by pytest's own record; overridden ones too."""
    definitions = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    for name, found in definitions.items():
        for definition in found:
            yield name, definition


def _holders(item: pytest.Item, parameters: Parameters) -> Iterator[tuple[pytest.Collector, Parameters]]:
    """The collectors at whose end a fixture of the test ends; and for which of `parameters` it is made."""
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
    """The fixtures that the fixture `name` of the test is made with, itself too."""
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
    """The package in which the fixture is defined; None where it is in none, and lives with the session."""
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
    """The value, as pytest compares it; where that cannot be, its index among the parameters."""
    try:
        hash(value)
    except TypeError:
        return index
    return value
