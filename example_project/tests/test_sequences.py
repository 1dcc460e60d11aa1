"""No sequence of actions loses a note that the service accepted: Hypothesis searches for one that does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from notes import Notes

    from pytest_vmsnap import Machine

PUTS = st.tuples(st.sampled_from(["colour", "shape"]), st.text("abc\n", max_size=5))
END = {"stop": "systemctl stop notesd", "kill": "systemctl kill --signal=KILL notesd"}
ACTIONS = st.lists(st.one_of(PUTS, st.sampled_from(sorted(END))), min_size=1, max_size=4)


# Each example is rolled back, so all examples can use one machine and start from the same point
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_no_order_of_actions_loses_a_note(
    vm: Machine, notes: Notes, actions: list[str | tuple[str, str]]
) -> None:
    with vm.rollback():
        kept: dict[str, str] = {}
        for action in actions:
            if isinstance(action, tuple):
                notes.put(*action)
                kept |= [action]
            else:
                vm.succeed(END[action], "systemctl restart notesd")
                vm.wait_for_open_port(8080)
        for name, text in kept.items():
            assert notes.get(name) == text
