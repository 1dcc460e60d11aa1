"""The order of tests, as a function of where they stand."""

from __future__ import annotations

import random
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.selection.order import Position, order

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from pytest_vmsnap.selection.order import Parameters

PARENTS = {"installed": "base", "configured": "installed", "other": "base"}


def ancestors(state: str) -> tuple[str, ...]:
    return (*ancestors(PARENTS[state]), PARENTS[state]) if state in PARENTS else ()


def vm(state: str = "base", *, file: str = "a", machine: str = "default", **more: Any) -> Position:
    return Position(
        file=file,
        machine=machine,
        state=state,
        within=more.pop("within", (file,)),
        fixture_owners=held(*more.pop("fixture_owners", ())),
        **more,
    )


def plain(file: str = "a", **more: Any) -> Position:
    within, fixture_owners = more.pop("within", (file,)), held(*more.pop("fixture_owners", ()))
    return Position(file=file, within=within, fixture_owners=fixture_owners, **more)


def held(*nodes: Hashable) -> tuple[tuple[Hashable, Parameters], ...]:
    """That fixtures of `nodes` are used, which are made for no parameters."""
    return tuple((node, frozenset()) for node in nodes)


def test_tests_of_one_state_come_together_as_they_came() -> None:
    tests = [vm(), vm("other"), vm(), vm("other"), vm(file="b")]
    assert order(tests, ancestors) == [0, 2, 4, 1, 3]


def test_groups_come_as_the_first_of_each_came() -> None:
    tests = [vm("other"), vm("installed"), vm("other"), vm("installed")]
    assert order(tests, ancestors) == [0, 2, 1, 3]


def test_parents_come_before_children() -> None:
    tests = [vm("configured"), vm("other"), vm("installed"), vm()]
    assert order(tests, ancestors) == [3, 2, 0, 1]


def test_ancestors_come_first_though_no_test_has_the_state_between() -> None:
    assert order([vm("configured"), vm()], ancestors) == [1, 0]


def test_parents_on_another_machine_are_no_parents() -> None:
    tests = [vm("installed"), vm(machine="large"), vm("installed", machine="large")]
    assert order(tests, ancestors) == [0, 1, 2]


def test_tests_of_another_machine_are_of_another_group() -> None:
    assert order([vm(), vm(machine="large"), vm()], ancestors) == [0, 2, 1]


def test_a_test_without_a_machine_goes_with_the_one_before_it() -> None:
    tests = [vm(), vm("other"), plain(), vm(), plain()]
    assert order(tests, ancestors) == [0, 3, 4, 1, 2]


def test_a_test_without_a_machine_before_all_others_of_its_file_goes_with_the_first() -> None:
    tests = [vm(file="a"), plain("b"), vm("other", file="b"), vm(file="b")]
    assert order(tests, ancestors) == [0, 3, 1, 2]


def test_a_file_without_machines_stays_where_it_is() -> None:
    tests = [plain("a"), vm(file="b"), plain("c"), vm("other", file="d"), plain("e"), vm(file="d")]
    assert order(tests, ancestors) == [0, 1, 5, 2, 3, 4]


def test_what_shares_a_fixture_of_a_module_moves_with_its_first_test_that_has_a_machine() -> None:
    shared = {"file": "b", "fixture_owners": ("b",)}
    tests = [vm("other"), plain(**shared), vm(**shared), vm("other", **shared), vm("other")]
    assert order(tests, ancestors) == [1, 2, 3, 0, 4]


def test_a_test_that_does_not_use_the_fixture_is_free_to_go() -> None:
    tests = [vm(fixture_owners=("a",)), vm("other"), vm(fixture_owners=("a",)), vm("other", file="b")]
    assert order(tests, ancestors) == [0, 2, 1, 3]


def test_fixtures_of_a_class_and_its_module_hold_all_together() -> None:
    inner = ("a", "a::A")
    tests = [
        vm("other", within=inner, fixture_owners=("a::A",)),
        vm(within=inner, fixture_owners=("a::A", "a")),
        vm(fixture_owners=("a",)),
        vm("other", file="b"),
        vm(file="b"),
    ]
    assert order(tests, ancestors) == [4, 0, 1, 2, 3]


def test_what_is_torn_apart_already_may_move_apart() -> None:
    tests = [
        vm(fixture_owners=("a",)),
        vm("other", file="b"),
        vm("other", fixture_owners=("a",)),
    ]
    assert order(tests, ancestors) == [0, 1, 2]


def test_parameters_of_the_session_come_together_before_all_else() -> None:
    one, two = frozenset([("db", 1)]), frozenset([("db", 2)])
    tests = [
        vm("other", parameters=one),
        vm(parameters=one),
        vm("other", parameters=two),
        vm(parameters=two),
        vm("other"),
    ]
    assert order(tests, ancestors) == [1, 0, 3, 2, 4]


def test_a_module_that_has_several_parameters_of_the_session_stays_between_them() -> None:
    one, two = frozenset([("db", 1)]), frozenset([("db", 2)])
    tests = [
        vm("other", file="a", parameters=one),
        vm(file="b", fixture_owners=("b",), parameters=one),
        vm(file="b", fixture_owners=("b",), parameters=two),
        vm(file="c", parameters=two),
    ]
    assert order(tests, ancestors) == [0, 1, 2, 3]


def test_a_fixture_that_is_made_for_each_parameter_of_the_session_holds_only_those_of_one() -> None:
    one, two = frozenset([("vm_spec", 160)]), frozenset([("vm_spec", 224)])
    tests = [
        Position(file="a", machine="small", within=("a",), parameters=parameters, fixture_owners=fixture_owners)
        for parameters in (one, two)
        for fixture_owners in ((), (("a", parameters),))
    ]
    assert order(tests, ancestors) == [0, 1, 2, 3]


def project(seed: int) -> list[Position]:
    """Files of tests, some in classes, as they would be collected."""
    draw = random.Random(seed)
    tests: list[Position] = []
    for number in range(draw.randint(1, 5)):
        package, file = f"p{number // 2}", f"f{number}"
        for _ in range(draw.randint(1, 3)):
            within = draw.choice([(package, file), (package, file, f"{file}::C{len(tests)}")])
            tests += [
                Position(
                    file=file,
                    machine=draw.choice([None, "small", "large"]),
                    state=draw.choice(["base", *PARENTS]),
                    within=within,
                    fixture_owners=held(*(node for node in within if draw.random() < 0.25)),
                )
                for _ in range(draw.randint(1, 4))
            ]
    return tests


def set_ups(tests: Sequence[Position]) -> int:
    """How many fixtures are made: each is gone as soon as a test is not within its collector."""
    alive: set[object] = set()
    made = 0
    for test in tests:
        fixture_owners = {node for node, _ in test.fixture_owners}
        alive &= set(test.within)
        made += len(fixture_owners - alive)
        alive |= fixture_owners
    return made


def stretches(tests: Sequence[Position]) -> int:
    kinds = [(test.machine, test.state) for test in tests if test.machine]
    return sum(one != two for one, two in pairwise(kinds))


@pytest.mark.parametrize("seed", range(300))
def test_no_test_is_lost_no_fixture_is_made_more_often_and_it_ends_there(seed: int) -> None:
    tests = project(seed)
    if seed % 3 == 0:
        random.Random(seed).shuffle(tests)
    indexes = order(tests, ancestors)
    assert sorted(indexes) == list(range(len(tests)))
    ordered = [tests[index] for index in indexes]
    assert set_ups(ordered) <= set_ups(tests)
    assert order(tests, ancestors) == indexes


@pytest.mark.parametrize("seed", range(100))
def test_without_wider_fixtures_each_group_is_there_once_and_behind_its_parents(seed: int) -> None:
    tests = [
        Position(file=test.file, machine=test.machine, state=test.state, within=test.within)
        for test in project(seed)
    ]
    ordered = [tests[index] for index in order(tests, ancestors)]
    groups = list(dict.fromkeys((test.machine, test.state) for test in ordered if test.machine))
    assert stretches(ordered) == max(len(groups) - 1, 0)
    for position, (machine, state) in enumerate(groups):
        later = set(groups[position:])
        assert not later & {(machine, above) for above in ancestors(state)}


def test_the_session_s_parameters_never_come_back_where_they_were_together() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        tests = list(
            chain.from_iterable(
                [
                    Position(
                        file=(file := f"f{draw.randint(0, 3)}"),
                        machine=draw.choice([None, "small"]),
                        state=draw.choice(["base", *PARENTS]),
                        within=(file,),
                        parameters=frozenset([("db", value)]) if value else frozenset(),
                    )
                    for _ in range(draw.randint(1, 6))
                ]
                for value in (0, 1, 2, 0, 3)
            )
        )
        ordered = [tests[index] for index in order(tests, ancestors)]
        values = [test.parameters for test in ordered if test.parameters]
        assert sum(one != two for one, two in pairwise(values)) == 2
