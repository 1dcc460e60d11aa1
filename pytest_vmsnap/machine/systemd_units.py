"""Whether a systemd unit can become active, and what to do if it cannot."""

from __future__ import annotations

import difflib
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MASKED = "masked"
# Units of these kinds need no file: they appear when the kernel or a program creates what they stand for. Until
# then, systemd calls them `not-found` too (systemd.mount(5), systemd.swap(5), systemd.scope(5),
# systemd.device(5)). A path is also the name of such a unit (systemctl(1)).
MADE_WITHOUT_FILE = (".mount", ".swap", ".scope", ".device")
SUFFIXES = (*MADE_WITHOUT_FILE, ".service", ".socket", ".target", ".timer", ".path", ".slice", ".automount")
MOST_NAMES = 3
PLACES = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd")
SYSTEM, USER = "system", "user"  # systemd.unit(5), "Unit File Load Path"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitState:
    """A unit's states, in systemd's words (org.freedesktop.systemd1(5)).

    `active` is its ActiveState, `load` its LoadState, `error` its LoadError.
    """

    active: str
    load: str
    error: str = ""


def show(manager: str, unit: str) -> str:
    """Return the command that prints a unit's state; `manager` is systemctl, for one service manager."""
    return f"{manager} show --property=ActiveState,LoadState,LoadError -- {shlex.quote(unit)}"


def names(*, of_user: bool) -> str:
    """Return the command that lists units with a file (systemctl itself took 4 s on an emulated processor)."""
    kind = USER if of_user else SYSTEM
    return f"ls -1 -- {' '.join(f'{place}/{kind}' for place in PLACES)} 2>/dev/null"


def parsed(text: str) -> UnitState:
    """Parse what the command of `show` has printed."""
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return UnitState(
        active=fields.get("ActiveState", ""),
        load=fields.get("LoadState", ""),
        error=fields.get("LoadError", "").partition(" ")[2].strip('" '),
    )


def inactive_reason(unit: str, state: UnitState) -> str:
    """Return why a unit cannot become active as things are, in words; empty if it can.

    A unit that is `loaded`, `stub` or `merged` can. If a unit is not inactive, its file does not matter.
    """
    if state.active != "inactive":
        return ""
    if state.load == "not-found" and not (unit.endswith(MADE_WITHOUT_FILE) or unit.startswith("/")):
        return f"the unit {unit} cannot become active: systemd does not know it"
    if state.load in ("bad-setting", "error"):
        words = f": {state.error}" if state.error else ""
        return f"the unit {unit} cannot become active: systemd cannot use its file ({state.load}){words}"
    if state.load == MASKED:
        return f"the unit {unit} cannot become active: it is masked"
    return ""


def advice(unit: str, state: UnitState, known: Sequence[str]) -> str:
    """Return what to do about a unit that cannot become active; `known` are the names of all units."""
    if state.load == MASKED:
        return f"run `systemctl unmask {unit}` first"
    if state.load != "not-found":
        return (
            f"`systemd-analyze verify {unit}` says what is wrong; after changing the file, run "
            "`systemctl daemon-reload`"
        )
    full = unit if unit.endswith(SUFFIXES) else f"{unit}.service"
    near = _nearest(full, known)
    return "\n".join(
        [
            f"did you mean: {', '.join(near)}?" if near else "no unit has a similar name",
            "if its file is new, run `systemctl daemon-reload`; if something creates it in the background "
            f"(systemd-run), use vm.wait_until_succeeds('systemctl is-active {full}')",
        ]
    )


def _nearest(unit: str, known: Sequence[str]) -> list[str]:
    """Return the names in `known` of the same kind as `unit` that are similar to it."""
    stem, dot, kind = unit.rpartition(".")
    stems = sorted({name.removesuffix(dot + kind) for name in known if name.endswith(dot + kind)})
    return [near + dot + kind for near in difflib.get_close_matches(stem, stems, n=MOST_NAMES)]
