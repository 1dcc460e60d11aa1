"""What markers ask for, and which are refused."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest

from pytest_vmsnap.errors import StateError, UnknownState
from pytest_vmsnap.model import MachineSpec
from pytest_vmsnap.selection import MarkerError, check, marker_lines, requirements, uses_machine
from pytest_vmsnap.selection.markers import MARKERS, signature
from pytest_vmsnap.states import NO_STATES, Declaration, StateTree

WHERE = "tests/test_x.py::test_x"


def mark(name: str, *args: Any, **kwargs: Any) -> pytest.Mark:
    decorator = getattr(pytest.mark, name)
    found: pytest.Mark = decorator.with_args(*args, **kwargs).mark
    return found


def test_without_markers_nothing_is_asked_for() -> None:
    found = requirements([], WHERE)
    assert (found.mark, found.changes) == (None, {})


def test_markers_of_others_are_passed_over() -> None:
    found = requirements([mark("skipif", True, reason="x"), mark("usefixtures", "vm")], WHERE)
    assert (found.mark, found.changes) == (None, {})


@pytest.mark.parametrize(("name", "wish"), [("vm_fresh", "fresh"), ("vm_readonly", "readonly")])
def test_a_mark_is_found(name: str, wish: str) -> None:
    assert requirements([mark(name)], WHERE).mark == wish


def test_a_mark_may_be_there_twice() -> None:
    assert requirements([mark("vm_fresh"), mark("vm_fresh")], WHERE).mark == "fresh"


def test_of_stacked_changes_the_closest_wins_field_by_field() -> None:
    closest_first = [
        mark("vm", memory=1024),
        mark("vm", memory=2048, cpus=4),
        mark("vm", cpus=8, network="none"),
    ]
    assert requirements(closest_first, WHERE).changes == {"memory": 1024, "cpus": 4, "network": "none"}


def test_without_a_marker_a_test_starts_from_base() -> None:
    assert requirements([mark("vm", cpus=4)], WHERE).state == "base"


def test_of_several_states_the_closest_wins() -> None:
    closest_first = [mark("vm_state", "installed"), mark("vm_fresh"), mark("vm_state", "configured")]
    found = requirements(closest_first, WHERE)
    assert (found.state, found.mark) == ("installed", "fresh")


def test_a_state_that_nobody_declares_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UnknownState, match=f"^{WHERE}: vm_state\\('instaled'\\): .*\nthe states are base$"):
        check([mark("vm_state", "instaled")], ["vm"], WHERE, NO_STATES)
    check([mark("vm_state", "base")], ["vm"], WHERE, NO_STATES)


def test_the_signature_of_vm_has_the_fields_of_the_spec() -> None:
    parameters = signature("vm").parameters.values()
    assert [parameter.name for parameter in parameters] == [
        field.name for field in dataclasses.fields(MachineSpec)
    ]
    assert {parameter.kind for parameter in parameters} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (mark("vm_fresh", 1), "vm_fresh(1): too many positional arguments"),
        (mark("vm_fresh", when="now"), "vm_fresh(when='now'): got an unexpected keyword argument 'when'"),
        (mark("vm_readonly", True), "vm_readonly(True): too many positional arguments"),
        (mark("vm_state"), "missing a required argument: 'name'"),
        (mark("vm_state", "one", "two"), "vm_state('one', 'two'): too many positional arguments"),
        (mark("vm_state", 5), "vm_state(5): the name of a state must be a string"),
        (mark("vm", 1024), "vm(1024): too many positional arguments"),
        (mark("vm", memroy=1024), "vm(memroy=1024): got an unexpected keyword argument 'memroy'"),
        (mark("vm", memory="2G"), "must be a whole number of MiB"),
        (mark("vm", cpus=0), "must be a whole number of processors"),
        (mark("vm", network="bridge"), "must be one of user, isolated, none"),
        (mark("vm", packages="nginx"), "must be a list of strings"),
        (mark("vm", disks=[{"bus": "nvme"}]), "a disk has no field 'bus'"),
        (mark("vm", disks=5), "vm(disks=5)"),
        (mark("vm", screen="yes"), "must be True or False"),
        (mark("vm", image=5), "must be a string"),
    ],
)
def test_a_wrong_argument_is_refused_with_the_signature_and_the_test(wrong: pytest.Mark, words: str) -> None:
    with pytest.raises(MarkerError) as caught:
        requirements([wrong], WHERE)
    message = str(caught.value)
    assert message.startswith(f"{WHERE}: {wrong.name}(")
    assert words in message
    assert message.endswith(f"the signature of the marker is {wrong.name}{signature(wrong.name)}")


CLUSTER = StateTree.of(
    [
        Declaration(name=name, function=lambda _vm: None, file=Path(name), machines=machines)
        for name, machines in {"single": None, "joined": {"a": {}, "b": {}}}.items()
    ]
)


def test_the_machines_of_a_cluster_are_those_of_the_closest_marker() -> None:
    closest_first = [mark("vm_cluster", a={}, b={}), mark("vm_cluster", c={}, d={})]
    assert requirements(closest_first, WHERE).machines == {"a": {}, "b": {}}


@pytest.mark.parametrize(
    ("marks", "fixture", "words"),
    [
        ([], "vm_cluster", "nothing says which machines there are; mark the test with vm_cluster"),
        ([mark("vm_state", "single")], "vm_cluster_class", "nothing says which machines"),
        ([mark("vm_state", "joined")], "vm", "is of a cluster: use vm_cluster, not vm"),
        ([mark("vm_state", "joined")], "vm_module", "use vm_cluster, not vm_module"),
        (
            [mark("vm_state", "joined"), mark("vm_cluster", a={}, b={})],
            "vm_cluster",
            r"leave vm_cluster\(...\) out",
        ),
        ([mark("vm_cluster", a={})], "vm_cluster", "2 to 8 machines, not 1"),
        ([mark("vm_cluster", a={}, B={})], "vm_cluster", "'B' cannot be the name"),
        ([mark("vm_cluster", a={}, b={"memroy": 1})], "vm_cluster", "no field 'memroy'"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(marks: list[pytest.Mark], fixture: str, words: str) -> None:
    with pytest.raises(MarkerError, match=words):
        check(marks, {fixture}, WHERE, CLUSTER)


def test_a_machine_of_a_cluster_starts_from_a_state_of_one_machine() -> None:
    check([mark("vm_cluster", a={"state": "single"}, b={})], {"vm_cluster"}, WHERE, CLUSTER)
    with pytest.raises(
        UnknownState, match=r"vm_cluster: the machine a: there is no state 'singel'(.|\n)*did you"
    ):
        check([mark("vm_cluster", a={"state": "singel"}, b={})], {"vm_cluster"}, WHERE, CLUSTER)
    with pytest.raises(StateError, match="which is a state of a cluster"):
        check([mark("vm_cluster", a={"state": "joined"}, b={})], {"vm_cluster"}, WHERE, CLUSTER)


def test_a_machine_without_a_disk_may_be_asked_for_since_the_kernel_may_come_from_elsewhere() -> None:
    assert requirements([mark("vm", image=None)], WHERE).changes == {"image": None}


@pytest.mark.parametrize("names", [("vm_fresh", "vm_readonly"), ("vm_readonly", "vm_fresh")])
def test_fresh_and_readonly_exclude_each_other(names: tuple[str, str]) -> None:
    with pytest.raises(MarkerError, match=f"^{WHERE}: a test cannot have both vm_fresh and vm_readonly$"):
        requirements([mark(name) for name in names], WHERE)


@pytest.mark.parametrize("wider", ["vm_class", "vm_module", "vm_session"])
def test_fresh_is_refused_where_a_test_has_only_machines_that_are_shared(wider: str) -> None:
    with pytest.raises(MarkerError, match=f"{WHERE}: vm_fresh applies to the fixture vm, .* only {wider}"):
        check([mark("vm_fresh")], ["request", wider], WHERE)
    check([mark("vm_fresh")], ["vm", wider], WHERE)
    check([mark("vm_readonly")], [wider], WHERE)


def test_fresh_is_allowed_on_a_test_without_a_machine_since_a_class_may_bear_it_for_others() -> None:
    check([mark("vm_fresh")], ["tmp_path"], WHERE)


@pytest.mark.parametrize("fixture", ["vm", "vm_class", "vm_module", "vm_session", "vm_factory"])
def test_a_test_uses_a_machine_by_one_of_the_fixtures(fixture: str) -> None:
    assert uses_machine(["tmp_path", fixture])


def test_the_spec_and_the_handle_are_no_machines() -> None:
    assert not uses_machine(["vm_spec", "vmsnap"])


def test_every_marker_has_a_line_with_its_signature_and_meaning() -> None:
    lines = marker_lines()
    assert [line.partition("(")[0] for line in lines] == list(MARKERS)
    assert lines[0].startswith("vm_fresh(): this test gets")
    assert lines[2].startswith("vm_state(name): the state that")
    assert "memory" in lines[3].partition(":")[0]
