"""What is said of a run's figures."""

from __future__ import annotations

from pytest_vmsnap.session import Revert, StateUse, Totals
from pytest_vmsnap.summary import sentence, tables


def test_the_line_says_what_was_built_and_what_tests_waited() -> None:
    found = Totals(
        built=2, build_seconds=34.2, reused=2, pulled=0, shared=0, reverts=40, median=0.008, ahead=38
    )
    assert sentence(found) == (
        "2 states built (34 s), 2 from the store, 40 reverts, 8 ms at the median, 38 of 40 made ahead"
    )


def test_what_there_was_none_of_is_not_said() -> None:
    warm = Totals(built=0, build_seconds=0.0, reused=1, pulled=0, shared=0, reverts=1, median=1.26, ahead=0)
    assert sentence(warm) == "1 state from the store, 1 revert, 1.3 s at the median, 0 of 1 made ahead"
    failed = Totals(built=1, build_seconds=9.0, reused=0, pulled=0, shared=0, reverts=0, median=None, ahead=0)
    assert sentence(failed) == "1 state built (9.0 s)"
    pulled = Totals(built=0, build_seconds=0.0, reused=0, pulled=2, shared=0, reverts=0, median=None, ahead=0)
    assert sentence(pulled) == "2 states from the registry"
    shared = Totals(built=1, build_seconds=9.0, reused=2, pulled=0, shared=1, reverts=0, median=None, ahead=0)
    assert sentence(shared) == "1 state built (9.0 s), 1 from the system store, 2 from the store"


def test_the_tables_have_the_slowest_first_in_columns() -> None:
    states = [
        StateUse(state="base", key="b", seconds=None),
        StateUse(state="database", key="d", seconds=12.34),
    ]
    reverts = [
        Revert(test="t.py::test_one", state="database", seconds=0.008, ahead=True),
        Revert(test="t.py::test_two", state="database", seconds=0.5, ahead=False),
        Revert(test="t.py::test_two", state="", seconds=0.4, ahead=False),
    ]
    assert tables(states, reverts) == [
        "state             built in  reverts  median  slowest  made ahead",
        "database              12 s        2  254 ms   500 ms      1 of 2",
        "base             the store        0                       0 of 0",
        "(within a test)                   1  400 ms   400 ms      0 of 1",
        "",
        "waited  reverts  made ahead  test",
        "900 ms        2      0 of 2  t.py::test_two",
        "  8 ms        1      1 of 1  t.py::test_one",
    ]
