"""The states of a project, and which is made from which."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import StateError, UnknownState
from pytest_vmsnap.states.declared import BASE, Declaration, declaration_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import ModuleType


@dataclass(frozen=True, slots=True)
class StateTree:
    """States by their names; ``base`` is above all of them, and not among them."""

    states: Mapping[str, Declaration] = field(default_factory=dict)

    def declaration(self, name: str) -> Declaration:
        """The state `name`; raises `UnknownState` with those that there are."""
        if name not in self.states:
            raise self.unknown(name)
        return self.states[name]

    def lineage(self, name: str) -> tuple[Declaration, ...]:
        """From the child of ``base`` down to `name` itself: what has to be made for it; empty for ``base``."""
        found: list[Declaration] = []
        while name != BASE:
            found.append(self.declaration(name))
            name = found[-1].parent
        return tuple(reversed(found))

    def depth(self, name: str) -> int:
        """How far below ``base`` it is; 0 for what is not known."""
        return len(self.lineage(name)) if name in self.states else 0

    def unknown(self, name: str, where: str = "") -> UnknownState:
        """The error for a name that is no state's, used at `where`."""
        close = difflib.get_close_matches(name, self.states, n=1)
        there = [f"  {BASE}  (the boot, and pytest_vmsnap_prepare)"]
        there += [f"  {each.name}  ({each.file})" for each in self.states.values()]
        return UnknownState(
            f"{where}there is no state {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
            hint="there are:\n" + "\n".join(there),
        )


def tree_of(modules: Iterable[ModuleType]) -> StateTree:
    """The states that are in `modules`, once each.

    Raises `StateError` for two of one name and for a cycle, `UnknownState` for a parent that is not there.
    """
    states: dict[str, Declaration] = {}
    for module in modules:
        for candidate in list(vars(module).values()):
            if found := declaration_of(candidate):
                other = states.setdefault(found.name, found)
                if other is not found:
                    raise StateError(
                        f"two states are called {found.name!r}: in {other.file} and in {found.file}",
                        hint="a state's name is its function's: rename one of them",
                    )
    tree = StateTree(states)
    for each in states.values():
        _check(tree, each)
    return tree


def _check(tree: StateTree, state: Declaration) -> None:
    seen = [state.name]
    while seen[-1] != BASE:
        parent = tree.states[seen[-1]].parent
        if parent != BASE and parent not in tree.states:
            raise tree.unknown(parent, f"the state {seen[-1]!r} has a parent that is not there: ")
        if parent in seen:
            circle = " -> ".join([*seen, parent])
            raise StateError(f"states that are made from one another: {circle}")
        seen.append(parent)
