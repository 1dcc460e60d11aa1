"""How states are printed: a line for each, with its size, its age and what it was made from."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vmsnap.cli.stored_states import StoredState

MINUTE, HOUR, DAY = 60, 3600, 86400


def rows(states: list[StoredState], *, project: bool = False, depth: int = 0) -> list[str]:
    """One line for each state; with `project`, it names the state's project too."""
    now = time.time()
    lines = []
    for each in states:
        made = each.origin.made_from
        words = [
            f"{'  ' * depth}{each.title}",
            f"cluster of {', '.join(each.members)}" if each.members else "full" if each.full else "incremental",
            f"{size(each.size)} of {size(each.apparent)}",
            f"made {ago(now - each.origin.created)} ago",
            f"used {ago(now - each.usage.used)} ago",
            f"{made.get('image', '?')}, QEMU {made.get('QEMU', '?')}, {made.get('accelerator', '?')}",
        ]
        lines.append("  ".join([*words, each.origin.project] if project else words))
    return lines


def size(count: int) -> str:
    mib = count / (1 << 20)
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"


def ago(seconds: float) -> str:
    for unit, name in ((DAY, "days"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(0.0, seconds):.0f} s"
