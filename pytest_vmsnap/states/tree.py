"""The states of a project, each below its parent."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import StateError, UnknownState
from pytest_vmsnap.states.base import BASE
from pytest_vmsnap.states.declared import Declaration, declaration_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class StateTree:
    """All states by name, but for ``base``, from which they all come.

    `root` is the directory that files are named relative to.
    """

    declarations: Mapping[str, Declaration] = field(default_factory=lambda: MappingProxyType({}))
    root: Path | None = None

    @classmethod
    def of(cls, declarations: Iterable[Declaration], *, root: Path | None = None) -> StateTree:
        """The tree of `declarations`; the same one may be among them several times.

        Raises `StateError` for two states of one name and for states that are each other's parents,
        `UnknownState` for a parent that is none.
        """
        by_name: dict[str, Declaration] = {}
        for declaration in sorted(declarations, key=_place):
            other = by_name.setdefault(declaration.name, declaration)
            if _place(other) != _place(declaration):
                places = " and in ".join(f"{_shown(one, root)}:{one.line}" for one in (other, declaration))
                raise StateError(
                    f"two states have the name {declaration.name}: in {places}", hint="give one another name"
                )
        tree = cls(declarations=MappingProxyType(by_name), root=root)
        for name, declaration in by_name.items():
            tree.require(declaration.parent, f"parent of the state {name} ({_shown(declaration, root)})")
            tree.lineage(name)
        return tree

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all states, ``base`` first."""
        return (BASE, *sorted(self.declarations))

    def require(self, name: str, where: str) -> None:
        """Raise `UnknownState`, with all the states that there are, if `name` is none; `where` asks for it."""
        if name not in self.names:
            close = difflib.get_close_matches(name, self.names, n=1)
            near = f"did you mean {close[0]}? " if close else ""
            raise UnknownState(
                f"{where}: there is no state {name!r}", hint=f"{near}there are {', '.join(self._listed())}"
            )

    def declaration(self, name: str) -> Declaration:
        """How the state `name` was declared; raises `UnknownState`, for ``base`` too, which nobody declares."""
        if name not in self.declarations:
            self.require(name, "states")
            raise UnknownState(f"the state {BASE} has no declaration")
        return self.declarations[name]

    def lineage(self, name: str) -> tuple[Declaration, ...]:
        """The states from ``base``'s child down to `name` itself; none for ``base``.

        Raises `UnknownState`, and `StateError` where a parent leads back to its child.
        """
        line: list[Declaration] = []
        while name != BASE:
            declaration = self.declaration(name)
            if declaration in line:
                around = [one.name for one in line[line.index(declaration) :]]
                raise StateError(
                    f"states are each other's parents: {' from '.join([*around, around[0]])}",
                    hint=f"the first of them starts from {BASE}, or from another state",
                )
            line.append(declaration)
            name = declaration.parent
        return tuple(reversed(line))

    def depth(self, name: str) -> int:
        """How many states are between the bare boot and `name`, itself counted: 0 for ``base``."""
        return len(self.lineage(name))

    def ancestors(self, name: str) -> tuple[str, ...]:
        """The names of the states that `name` comes from, ``base`` first, without itself."""
        return (BASE, *(declaration.name for declaration in self.lineage(name)))[:-1]

    def _listed(self) -> list[str]:
        return [
            f"{name} ({_shown(self.declarations[name], self.root)})" if name in self.declarations else name
            for name in self.names
        ]


NO_STATES = StateTree()


def collect(modules: Iterable[object], *, root: Path | None = None) -> StateTree:
    """The tree of the states in `modules`, and of those that these name as parents by their functions.

    What is no module is passed over. Raises as `StateTree.of`.
    """
    return StateTree.of(_found(modules), root=root)


def _found(modules: Iterable[object]) -> Iterator[Declaration]:
    for module in modules:
        if isinstance(module, ModuleType):
            for value in list(vars(module).values()):
                declaration = declaration_of(value)
                while declaration:
                    yield declaration
                    declaration = declaration.above


def _place(declaration: Declaration) -> tuple[str, str, int]:
    """The same for one definition, although its file was imported twice under two names."""
    return declaration.name, str(declaration.file), declaration.line


def _shown(declaration: Declaration, root: Path | None) -> str:
    file = declaration.file
    return str(file.relative_to(root) if root and file.is_relative_to(root) else file)
