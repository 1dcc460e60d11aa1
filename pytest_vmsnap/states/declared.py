"""States as a project writes them: a function that prepares a machine from where its parent left it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from pytest_vmsnap.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vmsnap.machine import Machine

Prepare = Callable[["Machine"], Any]
Function = TypeVar("Function", bound=Callable[..., Any])

BASE = "base"
ATTRIBUTE = "_vmsnap_state"
USAGE = 'it is written @state or @state(parent=..., inputs=["files/*"]) above a function that takes the machine'


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Declaration:
    """A state: its `name`, the function that prepares it, its parent's name, and what else it is made from.

    `inputs` are globs relative to the directory of `file`, which defines it.
    """

    name: str
    function: Prepare
    parent: str
    inputs: tuple[str, ...]
    file: Path


@overload
def state(function: Function, /) -> Function: ...
@overload
def state(*, parent: str | Prepare = BASE, inputs: Sequence[str] = ()) -> Callable[[Function], Function]: ...
def state(function: Any = None, /, *, parent: Any = BASE, inputs: Sequence[str] = ()) -> Any:
    """Make a function that takes a `Machine` the preparation of a state, which has the function's name.

    `parent` is the state that it starts from, by name or by its function; `inputs` are globs, relative to the
    file that the function is in: the state is made anew when what they match has changed. Returns the function.

    Raises `StateError` for anything else.
    """
    above, globs = _name_of(parent), _globs(inputs)

    def declare(function: Function) -> Function:
        setattr(function, ATTRIBUTE, _declared(function, above, globs))
        return function

    return declare if function is None else declare(function)


def declaration_of(candidate: object) -> Declaration | None:
    """What `state` has made of a function, None of anything else."""
    found = getattr(candidate, ATTRIBUTE, None) if inspect.isfunction(candidate) else None
    return found if isinstance(found, Declaration) else None


def _declared(function: object, parent: str, inputs: tuple[str, ...]) -> Declaration:
    if not inspect.isfunction(function):
        raise StateError(f"@state: {function!r} is no function", hint=USAGE)
    parameters = inspect.signature(function).parameters
    if len(parameters) != 1:
        raise StateError(
            f"@state: {function.__name__} takes {len(parameters)} arguments, and a state's function takes one",
            hint=f"def {function.__name__}(vm): ...",
        )
    if function.__name__ == BASE:
        raise StateError(
            "@state: `base` is the boot and pytest_vmsnap_prepare, and has no function",
            hint="name it otherwise",
        )
    return Declaration(
        name=function.__name__,
        function=function,
        parent=parent,
        inputs=inputs,
        file=Path(inspect.unwrap(function).__code__.co_filename),
    )


def _name_of(parent: object) -> str:
    if isinstance(parent, str) and parent:
        return parent
    if found := declaration_of(parent):
        return found.name
    raise StateError(f"@state: parent={parent!r} is neither a state's name nor its function", hint=USAGE)


def _globs(inputs: object) -> tuple[str, ...]:
    if isinstance(inputs, str) or not hasattr(inputs, "__iter__"):
        raise StateError(f"@state: inputs={inputs!r} is no list of globs", hint='e.g. inputs=["files/*.conf"]')
    found = tuple(inputs)
    for each in found:
        if not isinstance(each, str) or not each:
            raise StateError(
                f"@state: inputs has {each!r}, which is no glob", hint='e.g. inputs=["files/*.conf"]'
            )
    return found
