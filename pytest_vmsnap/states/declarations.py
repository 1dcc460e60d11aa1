"""Declare states with ``@state``."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from pytest_vmsnap.errors import SpecError, StateError
from pytest_vmsnap.model import expect_machines
from pytest_vmsnap.states.base_state import BASE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import CodeType

    Preparation = Callable[..., object]

Function = TypeVar("Function", bound="Preparation")

MARK = "__vmsnap_state__"  # the attribute of a state's function that holds its declaration
ALLOWED = (
    "use @state or @state(parent=NAME or function, inputs=[GLOB, ...]) on a function that takes one argument"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """The declaration of a state: `function` prepares a machine that is in the state `parent`.

    `inputs` are globs relative to the directory of `file`, which defines the state. `machines` are those of a
    cluster: for each name, the fields of its spec that differ, and the ``state`` that it starts from. `related`
    are the declarations of the states that are given as functions, as the parent or as a machine's state.
    """

    name: str
    function: Preparation
    file: Path
    parent: str = BASE
    inputs: tuple[str, ...] = ()
    machines: Mapping[str, dict[str, Any]] | None = None
    related: tuple[Declaration, ...] = field(default=(), repr=False)

    @property
    def line(self) -> int:
        """The line of the file that the function starts at."""
        return _code(self.function).co_firstlineno


@overload
def state(function: Function, /) -> Function: ...


@overload
def state(
    *,
    parent: str | Preparation = BASE,
    inputs: Sequence[str] = (),
    machines: Mapping[str, dict[str, Any]] | None = None,
) -> Callable[[Function], Function]: ...


def state(
    function: Preparation | None = None,
    /,
    *,
    parent: str | Preparation = BASE,
    inputs: Sequence[str] = (),
    machines: Mapping[str, dict[str, Any]] | None = None,
) -> Any:
    """Declare a state: the decorated function takes a `Machine` and prepares it; its name is the state's name.

    `parent` is the state to start from, as a name or a function; the default is ``base``. `inputs` are globs of
    the files that the function reads, relative to the directory of the file that defines it; if one of these
    files changes, the state is rebuilt. With `machines`, the function takes a `Cluster` of 2 to 8 machines: a
    dict with, for each name, a dict of the fields of `MachineSpec` that differ, and the ``state`` that the
    machine starts from, as a name or a function. A child of such a state has the same machines. The function is
    returned unchanged.

    Raises `StateError` on decoration if the function cannot be a state: it must be a plain function of one
    argument, and not be called ``base``; also for machines that cannot be.
    """

    def declare(function: Preparation) -> Preparation:
        above = None if isinstance(parent, str) else declaration_of(parent)
        members = machines if machines is None else _machines(machines, parent)
        starts = [each["state"] for each in (machines or {}).values() if callable(each.get("state"))]
        started_from = [found for found in map(declaration_of, starts) if found]
        declared = Declaration(
            name=_checked(function),
            function=function,
            file=Path(_code(function).co_filename),
            parent=_parent(parent, above),
            inputs=_globs(inputs),
            machines=members,
            related=(*([above] if above else []), *started_from),
        )
        setattr(function, MARK, declared)
        return function

    return declare if function is None else declare(function)


def declaration_of(function: object) -> Declaration | None:
    """The declaration of a function that is decorated with ``@state``, None for anything else.

    A further decorator around it (with `functools.wraps`) belongs to the state.
    """
    if not inspect.isfunction(function):
        return None
    found: Declaration | None = vars(function).get(MARK)
    return replace(found, function=function) if found and found.function is not function else found


def _checked(function: object) -> str:
    """The name of `function`; raises `StateError` if it cannot be a state."""
    if not inspect.isfunction(function):
        raise StateError(f"@state on {function!r}, which is not a function", hint=ALLOWED)
    name = function.__name__
    where = f"@state on {name} ({_code(function).co_filename}:{_code(function).co_firstlineno})"
    if name == BASE:
        raise StateError(
            f"{where}: the name {BASE} is reserved for the base state",
            hint="choose another name; to prepare the base state, implement pytest_vmsnap_prepare",
        )
    if not name.isidentifier():
        raise StateError(f"{where}: the function has no name, and a state needs one", hint=ALLOWED)
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        raise StateError(
            f"{where}: a generator or async function cannot be a state, because calling it runs nothing",
            hint=ALLOWED,
        )
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 1 or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        taken = ", ".join(str(parameter) for parameter in parameters)
        raise StateError(
            f"{where}: the function takes ({taken}), but must take exactly one argument, the machine",
            hint=ALLOWED,
        )
    return name


def _parent(parent: object, above: Declaration | None) -> str:
    if above:
        return above.name
    if not isinstance(parent, str) or not parent:
        raise StateError(f"parent={parent!r} is neither a state's name nor its function", hint=ALLOWED)
    return parent


def _machines(machines: object, parent: object) -> Mapping[str, dict[str, Any]]:
    if not isinstance(machines, dict) or not all(isinstance(each, dict) for each in machines.values()):
        raise StateError(
            f"machines={machines!r} is not a dict of dicts",
            hint="e.g. machines={'server': {'state': 'database'}, 'client': {'memory': 256}}",
        )
    if parent != BASE:
        raise StateError(
            f"machines={machines!r} with parent={parent!r}: a cluster starts from its machines' states",
            hint="give each machine its state, or leave machines out: a state has those of its parent",
        )
    named = {name: dict(each) for name, each in machines.items()}
    for each in named.values():
        if found := declaration_of(each.get("state")):
            each["state"] = found.name
    try:
        expect_machines(named)
    except SpecError as error:
        raise StateError(f"machines={machines!r}: {error.message}", hint=error.hint) from error
    return MappingProxyType(named)


def _globs(inputs: object) -> tuple[str, ...]:
    if not isinstance(inputs, list | tuple) or not all(isinstance(glob, str) and glob for glob in inputs):
        raise StateError(f"inputs={inputs!r} is not a list of globs", hint=ALLOWED)
    for glob in inputs:
        if Path(glob).is_absolute():
            raise StateError(
                f"inputs={inputs!r}: {glob} is absolute",
                hint="use globs relative to the directory of the file that defines the state",
            )
    return tuple(inputs)


def _code(function: Any) -> CodeType:
    code: CodeType = inspect.unwrap(function).__code__
    return code
