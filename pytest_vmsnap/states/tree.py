"""The tree of a project's states."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import StateError, UnknownState
from pytest_vmsnap.states.base_state import BASE
from pytest_vmsnap.states.declarations import Declaration, declaration_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class StateTree:
    """All states by name, except ``base``, the root of the tree.

    Messages show files relative to the directory `root`.
    """

    declarations: Mapping[str, Declaration] = field(default_factory=lambda: MappingProxyType({}))
    root: Path | None = None

    @classmethod
    def of(cls, declarations: Iterable[Declaration], *, root: Path | None = None) -> StateTree:
        """The tree of `declarations`, which may contain the same one several times.

        Raises `StateError` if two states have the same name or states are each other's parents, `UnknownState`
        if a parent does not exist.
        """
        by_name: dict[str, Declaration] = {}
        for declaration in sorted(declarations, key=_place):
            other = by_name.setdefault(declaration.name, declaration)
            if _place(other) != _place(declaration):
                places = " and in ".join(f"{_shown(one, root)}:{one.line}" for one in (other, declaration))
                raise StateError(
                    f"two states are called {declaration.name}: in {places}", hint="rename one of them"
                )
        tree = cls(declarations=MappingProxyType(by_name), root=root)
        for name, declaration in by_name.items():
            tree.require(declaration.parent, f"parent of the state {name} ({_shown(declaration, root)})")
            tree.lineage(name)
            tree.expect_single(declaration.machines or {}, f"state {name} ({_shown(declaration, root)})")
        return tree

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all states, ``base`` first."""
        return (BASE, *sorted(self.declarations))

    def require(self, name: str, where: str) -> None:
        """Raise `UnknownState`, listing all states, if there is no state `name`; `where` says what needs it."""
        if name not in self.names:
            close = difflib.get_close_matches(name, self.names, n=1)
            near = f"did you mean {close[0]}? " if close else ""
            raise UnknownState(
                f"{where}: there is no state {name!r}", hint=f"{near}the states are {', '.join(self._listed())}"
            )

    def declaration(self, name: str) -> Declaration:
        """The declaration of the state `name`; raises `UnknownState`, also for ``base``, which has none."""
        if name not in self.declarations:
            self.require(name, "states")
            raise UnknownState(f"the state {BASE} has no declaration")
        return self.declarations[name]

    def lineage(self, name: str) -> tuple[Declaration, ...]:
        """The states from the child of ``base`` down to `name` itself; empty for ``base``.

        Raises `UnknownState` if a state does not exist, `StateError` if states are each other's parents.
        """
        line: list[Declaration] = []
        while name != BASE:
            declaration = self.declaration(name)
            if declaration in line:
                around = [one.name for one in line[line.index(declaration) :]]
                raise StateError(
                    f"states are each other's parents: {' from '.join([*around, around[0]])}",
                    hint=f"let one of them start from {BASE} or from another state",
                )
            line.append(declaration)
            name = declaration.parent
        return tuple(reversed(line))

    def machines(self, name: str) -> Mapping[str, dict[str, Any]] | None:
        """The machines of the cluster that the state `name` is of; None for a state of one machine."""
        lineage = self.lineage(name) if name != BASE else ()
        return next((one.machines for one in reversed(lineage) if one.machines is not None), None)

    def expect_single(self, machines: Mapping[str, Mapping[str, Any]], where: str) -> None:
        """Check that each of `machines` starts from a state of one machine; `where` says what needs them.

        Raises `UnknownState`, and `StateError` for a state of a cluster.
        """
        for name, given in machines.items():
            state = given.get("state", BASE)
            self.require(state, f"{where}: the machine {name}")
            if self.machines(state) is not None:
                raise StateError(
                    f"{where}: the machine {name} cannot start from {state}, which is a state of a cluster",
                    hint="start it from a state of one machine",
                )

    def depth(self, name: str) -> int:
        """How many states follow ``base`` down to `name`, including `name`; 0 for ``base``."""
        return len(self.lineage(name))

    def ancestors(self, name: str) -> tuple[str, ...]:
        """The names of the ancestors of the state `name`, ``base`` first."""
        return (BASE, *(declaration.name for declaration in self.lineage(name)))[:-1]

    def _listed(self) -> list[str]:
        return [
            f"{name} ({_shown(self.declarations[name], self.root)})" if name in self.declarations else name
            for name in self.names
        ]


NO_STATES = StateTree()


def collect(modules: Iterable[object], *, root: Path | None = None) -> StateTree:
    """The tree of the states in `modules`, and of those that these states start from, given as functions.

    Objects that are not modules are skipped. Raises as `StateTree.of` does.
    """
    return StateTree.of(_found(modules), root=root)


def _found(modules: Iterable[object]) -> Iterator[Declaration]:
    for module in modules:
        if isinstance(module, ModuleType):
            for value in list(vars(module).values()):
                declaration = declaration_of(value)
                if declaration:
                    yield from _with_related(declaration)


def _with_related(declaration: Declaration) -> Iterator[Declaration]:
    yield declaration
    for each in declaration.related:
        yield from _with_related(each)


def _place(declaration: Declaration) -> tuple[str, str, int]:
    """What identifies a definition, even if its file is imported twice under two names."""
    return declaration.name, str(declaration.file), declaration.line


def _shown(declaration: Declaration, root: Path | None) -> str:
    file = declaration.file
    return str(file.relative_to(root) if root and file.is_relative_to(root) else file)
