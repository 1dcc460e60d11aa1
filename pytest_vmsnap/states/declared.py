"""What a project declares of its states: ``@state``."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from pytest_vmsnap.errors import StateError
from pytest_vmsnap.states.base import BASE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType

    Preparation = Callable[..., object]

Function = TypeVar("Function", bound="Preparation")

MARK = "__vmsnap_state__"  # the attribute of a state's function that holds its declaration
ALLOWED = (
    "allowed are @state and @state(parent=NAME or its function, inputs=[globs]), on a function of one argument"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """A state: `function` prepares the machine from where the state `parent` left it.

    `inputs` are globs relative to the directory of `file`, which defines the state. `above` is the parent's
    declaration where the parent was given as its function.
    """

    name: str
    function: Preparation
    file: Path
    parent: str = BASE
    inputs: tuple[str, ...] = ()
    above: Declaration | None = field(default=None, repr=False)

    @property
    def line(self) -> int:
        """Where in the file the function begins."""
        return _code(self.function).co_firstlineno


@overload
def state(function: Function, /) -> Function: ...


@overload
def state(
    *, parent: str | Preparation = BASE, inputs: Sequence[str] = ()
) -> Callable[[Function], Function]: ...


def state(
    function: Preparation | None = None, /, *, parent: str | Preparation = BASE, inputs: Sequence[str] = ()
) -> Any:
    """Declare a state: the decorated function takes a machine (`vm`) and prepares it; its name is the state's.

    `parent` is the state to start from, by name or by function; without it, ``base``. `inputs` are globs of the
    files that the preparation reads, relative to the file that defines it. The function stays as it is.

    Raises `StateError` at once for what can be no state.
    """

    def declare(function: Preparation) -> Preparation:
        above = None if isinstance(parent, str) else declaration_of(parent)
        declared = Declaration(
            name=_checked(function),
            function=function,
            file=Path(_code(function).co_filename),
            parent=_parent(parent, above),
            inputs=_globs(inputs),
            above=above,
        )
        setattr(function, MARK, declared)
        return function

    return declare if function is None else declare(function)


def declaration_of(function: object) -> Declaration | None:
    """The declaration of a function that ``@state`` was put on, None for anything else.

    A decorator around a state (with `functools.wraps`) is part of it.
    """
    if not inspect.isfunction(function):
        return None
    found: Declaration | None = vars(function).get(MARK)
    return replace(found, function=function) if found and found.function is not function else found


def _checked(function: object) -> str:
    """The name of a function that can be a state."""
    if not inspect.isfunction(function):
        raise StateError(f"@state on {function!r}, which is no function", hint=ALLOWED)
    name = function.__name__
    where = f"@state on {name} ({_code(function).co_filename}:{_code(function).co_firstlineno})"
    if name == BASE:
        raise StateError(
            f"{where}: the state {BASE} is there already",
            hint="pytest_vmsnap_prepare prepares it; a state of your own needs another name",
        )
    if not name.isidentifier():
        raise StateError(f"{where}: a state needs a name", hint=ALLOWED)
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        raise StateError(
            f"{where}: a call of it would do nothing, for it is a generator or async", hint=ALLOWED
        )
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 1 or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        taken = ", ".join(str(parameter) for parameter in parameters)
        raise StateError(f"{where}: it takes ({taken}), not the machine alone", hint=ALLOWED)
    return name


def _parent(parent: object, above: Declaration | None) -> str:
    if above:
        return above.name
    if not isinstance(parent, str) or not parent:
        raise StateError(f"parent={parent!r} is neither a state's name nor its function", hint=ALLOWED)
    return parent


def _globs(inputs: object) -> tuple[str, ...]:
    if not isinstance(inputs, list | tuple) or not all(isinstance(glob, str) and glob for glob in inputs):
        raise StateError(f"inputs={inputs!r} is no list of globs", hint=ALLOWED)
    for glob in inputs:
        if Path(glob).is_absolute():
            raise StateError(
                f"inputs={inputs!r}: {glob} is absolute", hint="globs are relative to the file of the state"
            )
    return tuple(inputs)


def _code(function: Any) -> CodeType:
    code: CodeType = inspect.unwrap(function).__code__
    return code
