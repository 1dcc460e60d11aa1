"""What a test asks for by its markers, and what it gets under the policy: pure functions."""

from pytest_vmsnap.selection.ahead import ahead, recipe, state_of
from pytest_vmsnap.selection.markers import MarkerError, Wishes, check, marker_lines, uses_machine, wishes
from pytest_vmsnap.selection.order import ordered
from pytest_vmsnap.selection.policy import Grant, Last, Mark, decide

__all__ = [
    "Wishes",
    "wishes",
    "check",
    "uses_machine",
    "marker_lines",
    "MarkerError",
    "Mark",
    "Last",
    "Grant",
    "decide",
    "ahead",
    "recipe",
    "state_of",
    "ordered",
]
