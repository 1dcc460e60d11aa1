"""How a state is written, and what is refused."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import pytest

from pytest_vmsnap import StateError, UnknownState, state
from pytest_vmsnap.states import tree_of
from pytest_vmsnap.states.declared import declaration_of


def first(vm: object) -> None: ...


def second(vm: object) -> None: ...


def module(**content: object) -> ModuleType:
    found = ModuleType("somewhere")
    vars(found).update(content)
    return found


def test_a_state_is_a_function_still_and_has_its_name() -> None:
    @state
    def database(vm: list[str]) -> None:
        vm.append("prepared")

    machine: list[str] = []
    database(machine)
    assert machine == ["prepared"]
    found = declaration_of(database)
    assert found
    assert (found.name, found.parent, found.inputs) == ("database", "base", ())
    assert found.file.name == "test_declared.py"


def test_a_parent_is_given_by_name_or_by_function() -> None:
    @state
    def above(vm: object) -> None: ...

    @state(parent=above, inputs=["*.conf"])
    def below(vm: object) -> None: ...

    @state(parent="above")
    def other(vm: object) -> None: ...

    tree = tree_of([module(above=above, below=below), module(other=other, above=above)])
    assert [each.name for each in tree.lineage("below")] == ["above", "below"]
    assert [each.name for each in tree.lineage("other")] == ["above", "other"]
    assert (tree.lineage("base"), tree.depth("below")) == ((), 2)


WRONG: list[tuple[dict[str, Any], Any, str]] = [
    ({"parent": 5}, first, "parent=5 is neither a state's name nor its function"),
    ({"parent": first}, second, "is neither a state's name nor its function"),
    ({"parent": ""}, first, "parent='' is neither"),
    ({"inputs": "files/*"}, first, "inputs='files/*' is no list of globs"),
    ({"inputs": [5]}, first, "inputs has 5, which is no glob"),
    ({}, lambda: None, "takes 0 arguments, and a state's function takes one"),
    ({}, int, "is no function"),
]


@pytest.mark.parametrize(("arguments", "function", "words"), WRONG, ids=[words for _, _, words in WRONG])
def test_what_is_no_state_is_refused_where_it_is_written(
    arguments: dict[str, Any], function: Any, words: str
) -> None:
    with pytest.raises(StateError, match=re.escape(words)):
        state(**arguments)(function)


def test_base_has_no_function() -> None:
    with pytest.raises(StateError, match="has no function"):

        @state
        def base(vm: object) -> None: ...


def named(name: str, parent: str = "base") -> Any:
    def prepare(vm: object) -> None: ...

    prepare.__name__ = name
    return state(parent=parent)(prepare)


def test_two_states_of_one_name_are_refused() -> None:
    with pytest.raises(StateError, match="two states are called 'one'"):
        tree_of([module(a=named("one")), module(a=named("one"))])


def test_a_circle_is_refused_with_its_way() -> None:
    with pytest.raises(StateError, match="one -> two -> one"):
        tree_of([module(a=named("one", "two"), b=named("two", "one"))])


def test_an_unknown_parent_is_refused_with_what_there_is() -> None:
    with pytest.raises(UnknownState, match="did you mean 'database'") as caught:
        tree_of([module(a=named("database"), b=named("service", "databse"))])
    assert "test_declared.py" in str(caught.value)
    assert "base" in str(caught.value)
