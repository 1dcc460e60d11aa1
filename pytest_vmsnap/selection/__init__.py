"""What a test asks for with its markers, what it gets under the policy, and when it runs: pure functions."""

from pytest_vmsnap.selection.durations import recorded_durations
from pytest_vmsnap.selection.groups import grouped
from pytest_vmsnap.selection.item_position import in_order
from pytest_vmsnap.selection.lookahead import lookahead, machine_key
from pytest_vmsnap.selection.markers import (
    MarkerError,
    Requirements,
    check,
    marker_lines,
    requirements,
    uses_machine,
)
from pytest_vmsnap.selection.revert_policy import Decision, Mark, PreviousMachine, decide
from pytest_vmsnap.selection.shard import in_shard

__all__ = [
    "in_shard",
    "recorded_durations",
    "Requirements",
    "requirements",
    "check",
    "uses_machine",
    "marker_lines",
    "MarkerError",
    "Mark",
    "PreviousMachine",
    "Decision",
    "decide",
    "lookahead",
    "machine_key",
    "in_order",
    "grouped",
]
