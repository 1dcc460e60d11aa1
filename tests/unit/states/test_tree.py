"""The states of a project, each below its parent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pytest_vmsnap import StateError, UnknownState, state
from pytest_vmsnap.states import NO_STATES, Declaration, StateTree, collect, declaration_of

HERE = Path(__file__)


def declared(name: str, parent: str = "base") -> Declaration:
    def function(vm: Any) -> None: ...

    return Declaration(name=name, function=function, file=HERE, parent=parent)


def tree(*declarations: Declaration) -> StateTree:
    return StateTree.of(declarations, root=HERE.parent)


THREE = tree(declared("configured", "installed"), declared("installed"), declared("other"))


def test_a_lineage_leads_from_the_child_of_base_down_to_the_state() -> None:
    assert [one.name for one in THREE.lineage("configured")] == ["installed", "configured"]
    assert THREE.lineage("base") == ()
    assert [THREE.depth(name) for name in ("base", "installed", "configured")] == [0, 1, 2]


def test_ancestors_are_those_that_a_state_comes_from() -> None:
    assert THREE.ancestors("configured") == ("base", "installed")
    assert THREE.ancestors("base") == ()


def test_a_declaration_is_found_by_name() -> None:
    assert THREE.declaration("other").name == "other"
    with pytest.raises(UnknownState, match="base has no declaration"):
        THREE.declaration("base")


def test_an_empty_tree_has_base_alone() -> None:
    assert NO_STATES.names == ("base",)
    NO_STATES.require("base", "somewhere")


def test_an_unknown_state_is_refused_with_all_that_there_are_and_the_nearest() -> None:
    with pytest.raises(UnknownState) as caught:
        THREE.require("instaled", "test_x")
    assert str(caught.value) == (
        "test_x: there is no state 'instaled'\ndid you mean installed? the states are base, "
        "configured (test_tree.py), installed (test_tree.py), other (test_tree.py)"
    )


def test_a_parent_that_is_no_state_is_refused() -> None:
    with pytest.raises(
        UnknownState, match=r"parent of the state one \(test_tree.py\): there is no state 'two'"
    ):
        tree(declared("one", "two"))


@pytest.mark.parametrize("parents", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "b"}])
def test_states_that_are_each_other_s_parents_are_refused(parents: dict[str, str]) -> None:
    with pytest.raises(StateError, match=r"each other's parents: . from "):
        tree(*(declared(name, parent) for name, parent in parents.items()))


CLUSTER = replace(declared("cluster"), machines={"a": {"state": "installed"}, "b": {}})


def test_a_state_of_a_cluster_and_its_children_have_its_machines() -> None:
    found = tree(CLUSTER, declared("installed"), declared("child", "cluster"), declared("grandchild", "child"))
    assert found.machines("grandchild") == found.machines("cluster") == CLUSTER.machines
    assert found.machines("installed") is None
    assert found.machines("base") is None


def test_a_machine_that_starts_from_no_state_is_refused() -> None:
    with pytest.raises(
        UnknownState, match=r"cluster \(test_tree.py\): the machine a: there is no state 'installed'"
    ):
        tree(CLUSTER)


def test_a_machine_cannot_start_from_a_state_of_a_cluster() -> None:
    further = replace(declared("further"), machines={"x": {"state": "cluster"}, "y": {}})
    with pytest.raises(
        StateError, match="the machine x cannot start from cluster, which is a state of a cluster"
    ):
        tree(CLUSTER, declared("installed"), further)


def test_states_that_machines_start_from_are_found_where_they_are_given_as_functions() -> None:
    elsewhere = ModuleType("elsewhere")

    @state
    def installed(vm: Any) -> None: ...

    @state(machines={"a": {"state": installed}, "b": {}})
    def joined(vm_cluster: Any) -> None: ...

    vars(elsewhere)["joined"] = joined
    assert collect([elsewhere]).names == ("base", "installed", "joined")


def test_two_states_of_one_name_are_refused_with_both_places() -> None:
    other = replace(declared("one"), file=Path("/elsewhere/conftest.py"))
    with pytest.raises(StateError) as caught:
        tree(declared("one"), other)
    assert "two states are called one: in /elsewhere/conftest.py:" in str(caught.value)
    assert " and in test_tree.py:" in str(caught.value)


def test_the_order_of_declarations_says_nothing() -> None:
    several = [declared("one"), declared("two", "one"), declared("three", "two")]
    assert tree(*several) == tree(*reversed(several))


def module(**content: Any) -> ModuleType:
    found = ModuleType("conftest")
    vars(found).update(content)
    return found


def test_states_are_found_in_modules_and_one_that_is_imported_into_several_is_one() -> None:
    @state
    def installed(vm: Any) -> None: ...

    found = collect([module(installed=installed, number=5), module(again=installed), object()])
    assert found.names == ("base", "installed")
    assert found.declaration("installed") == declaration_of(installed)


def test_a_parent_that_is_given_as_its_function_needs_to_be_in_no_module() -> None:
    @state
    def installed(vm: Any) -> None: ...

    @state(parent=installed)
    def configured(vm: Any) -> None: ...

    assert collect([module(configured=configured)]).names == ("base", "configured", "installed")
