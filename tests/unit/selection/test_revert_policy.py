"""Design §3's table of policies, whole."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, get_args

import pytest

from pytest_vmsnap.model import Revert
from pytest_vmsnap.selection import Mark, PreviousMachine, decide

if TYPE_CHECKING:
    from collections.abc import Iterator

POLICIES: tuple[Revert, ...] = get_args(Revert)
MARKS: tuple[Mark | None, ...] = (None, *get_args(Mark))
LASTS = [
    PreviousMachine(fits=fits, well=well, failed=failed, read_only=read_only)
    for fits, well, failed, read_only in itertools.product((True, False), repeat=4)
]

# (policy, mark): what the machine of the test before must be to be shared, by field; None: it never is
SHARED_IF: dict[tuple[Revert, Mark | None], dict[str, bool] | None] = {
    ("always", None): None,
    ("always", "readonly"): {"fits": True, "well": True, "failed": False, "read_only": True},
    ("always", "fresh"): None,
    ("marked", None): {"fits": True, "well": True},
    ("marked", "readonly"): {"fits": True, "well": True},
    ("marked", "fresh"): None,
    ("on-failure", None): {"fits": True, "well": True, "failed": False},
    ("on-failure", "readonly"): {"fits": True, "well": True, "failed": False},
    ("on-failure", "fresh"): None,
}


def table() -> Iterator[tuple[Revert, Mark | None, PreviousMachine, str]]:
    for (policy, mark), needed in SHARED_IF.items():
        for last in LASTS:
            shared = needed is not None and all(getattr(last, name) == value for name, value in needed.items())
            yield policy, mark, last, "shared" if shared else "clean"


def test_the_table_has_every_policy_with_every_mark() -> None:
    assert set(SHARED_IF) == set(itertools.product(POLICIES, MARKS))


@pytest.mark.parametrize(("policy", "mark", "last", "machine"), list(table()))
def test_a_machine_is_shared_only_as_the_table_says(
    policy: Revert, mark: Mark | None, last: PreviousMachine, machine: str
) -> None:
    assert decide(policy, mark, last).machine == machine


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("mark", MARKS)
def test_the_first_machine_is_clean(policy: Revert, mark: Mark | None) -> None:
    assert decide(policy, mark, None).machine == "clean"


@pytest.mark.parametrize("last", [None, *LASTS])
@pytest.mark.parametrize("mark", [None, "fresh"])
def test_under_always_nobody_gets_a_machine_after_a_test_that_may_have_changed_it(
    mark: Mark | None, last: PreviousMachine | None
) -> None:
    assert decide("always", mark, last).keep is False


@pytest.mark.parametrize("last", [None, *LASTS])
@pytest.mark.parametrize(
    ("policy", "mark"),
    [pair for pair in itertools.product(POLICIES, MARKS) if pair[0] != "always" or pair[1] == "readonly"],
)
def test_elsewhere_a_machine_is_kept_for_the_next_test(
    policy: Revert, mark: Mark | None, last: PreviousMachine | None
) -> None:
    assert decide(policy, mark, last).keep is True
