"""The figures of a run, put together from those of its workers."""

from __future__ import annotations

import pickle

from pytest_vmsnap.session import Revert, StateUse, Timings, packed, totals, unpacked


def test_a_run_without_a_machine_has_no_figures() -> None:
    assert totals(Timings()) is None


def test_a_state_that_one_worker_built_and_another_took_was_built_once() -> None:
    timings = Timings()
    timings.merge(StateUse(state="base", key="b", seconds=None))
    timings.merge(StateUse(state="base", key="b", seconds=20.0))
    timings.merge(StateUse(state="base", key="b", seconds=None))
    timings.merge(StateUse(state="base", key="of another machine", seconds=None))
    found = totals(timings)
    assert found
    assert (found.built, found.build_seconds, found.reused) == (1, 20.0, 1)
    assert (found.reverts, found.median, found.ahead) == (0, None, 0)


def test_what_two_workers_handed_over_is_counted_together() -> None:
    timings = Timings()
    for seconds, ahead in ((0.5, False), (0.008, True), (0.006, True)):
        timings.merge(Revert(test="t", state="base", seconds=seconds, ahead=ahead))
    found = totals(timings)
    assert found
    assert (found.reverts, found.median, found.ahead) == (3, 0.008, 2)


def test_what_is_noted_is_told_and_what_is_merged_is_not() -> None:
    told: list[object] = []
    timings = Timings(told.append)
    timings.begin("a.py::test_one")
    timings.note_revert("base", 0.1, True)
    timings.note_state("base", "b", None)
    assert told == [
        Revert(test="a.py::test_one", state="base", seconds=0.1, ahead=True),
        StateUse(state="base", key="b", seconds=None),
    ]
    timings.merge(StateUse(state="other", key="o", seconds=1.0))
    assert len(told) == 2
    assert timings.take_new_reverts() == told[:1]
    assert timings.take_new_reverts() == []


def test_records_travel_as_plain_data() -> None:
    records = [
        Revert(test="t", state="", seconds=0.5, ahead=False),
        StateUse(state="base", key="b", seconds=None),
    ]
    for record in records:
        data = packed(record)
        assert all(isinstance(value, str | float | bool | None) for value in data.values())
        assert unpacked(pickle.loads(pickle.dumps(data))) == record  # noqa: S301 - our own
