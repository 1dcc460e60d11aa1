"""Which tests stay on one worker."""

from __future__ import annotations

from pytest_vmsnap.selection.groups import parts
from pytest_vmsnap.selection.order import Position


def places_of(*states: str | None, fixture_owners: object = None) -> list[Position]:
    held = ((fixture_owners, frozenset()),) if fixture_owners else ()
    return [
        Position(file="f", machine="m" if state else None, state=state or "base", fixture_owners=held)  # type: ignore[arg-type]
        for state in states
    ]


def sizes(positions: list[Position], workers: int) -> list[tuple[str, int]]:
    return [(positions[part[0]].state, len(part)) for part in parts(positions, workers=workers)]


def test_states_that_fill_the_workers_stay_whole() -> None:
    positions = places_of(*["a"] * 10, *["b"] * 10)
    assert sizes(positions, 2) == [("a", 10), ("b", 10)]


def test_one_state_is_shared_by_all_workers() -> None:
    assert sizes(places_of(*["a"] * 40), 2) == [("a", 11), ("a", 10), ("a", 10), ("a", 9)]


def test_a_state_that_is_more_than_a_share_is_cut_and_others_are_not() -> None:
    assert sizes(places_of(*["a"] * 30, *["b"] * 10), 2) == [("a", 11), ("a", 10), ("a", 9), ("b", 10)]


def test_every_state_has_a_part_that_is_handed_out_before_the_rest_of_any() -> None:
    found = sizes(places_of(*["a"] * 20, *["b"] * 20), 4)
    largest_first = sorted(found, key=lambda part: -part[1])
    assert [state for state, _ in largest_first[:2]] == ["a", "b"]


def test_machines_of_other_hardware_are_others_and_tests_without_are_in_no_part() -> None:
    positions = [*places_of("a", None, "a"), Position(file="f", machine="other", state="a")]
    assert parts(positions, workers=1) == [[0, 2], [3]]


def test_tests_that_share_a_fixture_are_not_parted() -> None:
    positions = [
        *places_of("a", "a"),
        *places_of("a", "a", "a", "a", fixture_owners="module"),
        *places_of("a", "a"),
    ]
    assert parts(positions, workers=4) == [[0, 1], [2, 3, 4, 5], [6], [7]]


def test_every_test_is_in_one_part() -> None:
    positions = places_of(*"abcab" * 7, None, *"c" * 20)
    for workers in (1, 2, 3, 8, 100):
        found = [index for part in parts(positions, workers=workers) for index in part]
        assert sorted(found) == [index for index, test in enumerate(positions) if test.machine]
