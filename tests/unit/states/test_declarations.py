"""What may be declared a state."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from pytest_vmsnap import StateError, state
from pytest_vmsnap.states import declaration_of


def installed(vm: Any) -> str:
    return f"prepared {vm}"


def declared(function: Any, **arguments: Any) -> Any:
    found = declaration_of(state(**arguments)(function) if arguments else state(function))
    assert found
    return found


def fresh() -> Any:
    def prepared(vm: Any) -> None: ...

    return prepared


def test_the_function_stays_as_it_is_and_bears_its_declaration() -> None:
    assert state(installed) is installed
    assert installed("it") == "prepared it"
    found = declaration_of(installed)
    assert found
    assert (found.name, found.function, found.parent, found.inputs) == ("installed", installed, "base", ())
    assert found.file == Path(__file__)


def test_a_parent_is_a_name_or_a_function() -> None:
    parent = state(fresh())
    assert declared(fresh(), parent="other").parent == "other"
    by_function = declared(fresh(), parent=parent)
    assert by_function.parent == "prepared"
    assert by_function.related == (declaration_of(parent),)


def test_inputs_are_kept_in_their_order() -> None:
    assert declared(fresh(), inputs=["b/*", "a"]).inputs == ("b/*", "a")


def test_the_machines_of_a_cluster_may_start_from_states_that_are_given_as_functions() -> None:
    start = state(fresh())
    found = declared(fresh(), machines={"a": {"state": start, "memory": 256}, "b": {}})
    assert found.machines == {"a": {"state": "prepared", "memory": 256}, "b": {}}
    assert found.related == (declaration_of(start),)


@pytest.mark.parametrize(
    ("machines", "words"),
    [
        (["a", "b"], "is not a dict of dicts"),
        ({"a": {}, "b": 1}, "is not a dict of dicts"),
        ({"a": {}}, "2 to 8 machines, not 1"),
        ({"a": {}, "b": {"state": fresh}}, "is not the name of a state"),
        ({"a": {}, "b": {"memroy": 1}}, "b: a machine has no field 'memroy'"),
    ],
)
def test_machines_that_cannot_be_are_refused_at_once(machines: Any, words: str) -> None:
    with pytest.raises(StateError, match=words):
        declared(fresh(), machines=machines)


def test_a_state_with_machines_has_no_parent() -> None:
    with pytest.raises(StateError, match="a cluster starts from its machines' states"):
        declared(fresh(), parent="other", machines={"a": {}, "b": {}})


def test_a_decorator_around_a_state_is_part_of_it() -> None:
    inner = state(fresh())

    @functools.wraps(inner)
    def outer(vm: Any) -> None: ...

    found = declaration_of(outer)
    assert found
    assert (found.name, found.function) == ("prepared", outer)


def test_what_is_no_state_has_no_declaration() -> None:
    assert declaration_of(fresh()) is None
    assert declaration_of("installed") is None


def none_taken() -> None: ...
def two_taken(vm: Any, spec: Any) -> None: ...
def all_taken(*machines: Any) -> None: ...
def named_taken(*, vm: Any) -> None: ...
async def later(vm: Any) -> None: ...
def base(vm: Any) -> None: ...
def yields(vm: Any) -> Any:
    yield vm


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (none_taken, "the function takes (), but must take exactly one argument, the machine"),
        (two_taken, "must take exactly one argument, the machine"),
        (all_taken, "must take exactly one argument, the machine"),
        (named_taken, "must take exactly one argument, the machine"),
        (later, "a generator or async function cannot be a state"),
        (yields, "a generator or async function cannot be a state"),
        (eval("lambda vm: None"), "has no name, and a state needs one"),  # noqa: S307 - ours
        (base, "the name base is reserved for the base state"),
        ("base", "'base', which is not a function"),
        (Path, "which is not a function"),
    ],
)
def test_what_can_be_no_state_is_refused_at_once(function: Any, words: str) -> None:
    with pytest.raises(StateError) as caught:
        state(function)
    assert words in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"parent": fresh()}, "is neither a state's name nor its function"),
        ({"parent": 5}, "parent=5 is neither"),
        ({"parent": ""}, "parent='' is neither"),
        ({"parent": None}, "parent=None is neither"),
        ({"inputs": "site/*"}, "inputs='site/*' is not a list of globs"),
        ({"inputs": [5]}, "is not a list of globs"),
        ({"inputs": [""]}, "is not a list of globs"),
        ({"inputs": ["/etc/*"]}, "/etc/* is absolute"),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(StateError) as caught:
        state(**arguments)(fresh())
    assert words in str(caught.value)
    assert caught.value.hint
