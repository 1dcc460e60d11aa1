"""Where pytest's tests stand, and in which order they are to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.selection.ahead import hardware
from pytest_vmsnap.selection.markers import uses_machine, wishes
from pytest_vmsnap.selection.order import Place, order
from pytest_vmsnap.states import BASE

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from pytest_vmsnap.states import StateTree


def arranged(items: Sequence[pytest.Item], tree: StateTree) -> list[pytest.Item]:
    """`items` in the order in which they are to run: see `order`."""
    return [items[index] for index in order([place(item) for item in items], tree.ancestors)]


def place(item: pytest.Item) -> Place:
    """What the place of a test depends on, as far as pytest tells before it runs.

    Fixtures that a test gets by ``request.getfixturevalue`` are not seen.
    """
    has_machine = uses_machine(getattr(item, "fixturenames", ()))
    return Place(
        file=item.path,
        machine=hardware(item) if has_machine else None,
        state=wishes(item.iter_markers(), item.nodeid).state if has_machine else BASE,
        within=tuple(item.listchain()[:-1]),
        holds=tuple(dict.fromkeys(_holders(item))),
        parameters=frozenset(_session_parameters(item)),
    )


def _fixtures(item: pytest.Item) -> Iterator[tuple[str, Any]]:
    """Name and definition of each fixture that a test uses, by pytest's own record; overridden ones too."""
    definitions = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    for name, found in definitions.items():
        for definition in found:
            yield name, definition


def _holders(item: pytest.Item) -> Iterator[pytest.Collector]:
    """The collectors at whose end a fixture of the test ends."""
    for _, definition in _fixtures(item):
        scope = getattr(definition, "scope", "function")
        if scope == "class":
            holder: pytest.Collector | None = item.getparent(pytest.Class)
        elif scope == "module":
            holder = item.getparent(pytest.Module)
        else:
            holder = _package(item, definition) if scope == "package" else None
        if holder:
            yield holder


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
