"""What a test asks for by its markers, what it gets under the policy, and when it runs: pure functions."""

from pytest_vmsnap.selection.ahead import ahead, recipe
from pytest_vmsnap.selection.groups import grouped
from pytest_vmsnap.selection.markers import MarkerError, Wishes, check, marker_lines, uses_machine, wishes
from pytest_vmsnap.selection.placing import arranged
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
    "arranged",
    "grouped",
]
