"""What systemd says of a unit: whether it can ever become active."""

from __future__ import annotations

import difflib
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MASKED = "masked"
# Units of these kinds come without a file, when the kernel or a program makes what they stand for: systemd
# calls a mount that is not there yet `not-found` too (systemd.mount(5), systemd.swap(5), systemd.scope(5),
# systemd.device(5)). A path is the name of one of them (systemctl(1)).
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
    """The command that prints a unit's state; `manager` is systemctl with what names the service manager."""
    return f"{manager} show --property=ActiveState,LoadState,LoadError -- {shlex.quote(unit)}"


def names(*, of_user: bool) -> str:
    """The command that prints the names of units with a file; systemctl took 4 s on an emulated processor."""
    kind = USER if of_user else SYSTEM
    return f"ls -1 -- {' '.join(f'{place}/{kind}' for place in PLACES)} 2>/dev/null"


def parsed(text: str) -> UnitState:
    """What `show` has printed."""
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return UnitState(
        active=fields.get("ActiveState", ""),
        load=fields.get("LoadState", ""),
        error=fields.get("LoadError", "").partition(" ")[2].strip('" '),
    )


def trouble(unit: str, state: UnitState) -> str:
    """Why a unit can never become active as things are, in words; empty where it may.

    `loaded`, `stub` and `merged` may. What is active or on its way is, whatever its file has become since.
    """
    if state.active != "inactive":
        return ""
    if state.load == "not-found" and not (unit.endswith(MADE_WITHOUT_FILE) or unit.startswith("/")):
        return f"the unit {unit} cannot become active: systemd knows no such unit"
    if state.load in ("bad-setting", "error"):
        words = f": {state.error}" if state.error else ""
        return f"the unit {unit} cannot become active: systemd cannot use its file ({state.load}){words}"
    if state.load == MASKED:
        return f"the unit {unit} cannot become active: it is masked"
    return ""


def advice(unit: str, state: UnitState, known: Sequence[str]) -> str:
    """What to do about a unit that cannot become active; `known` are the names of all units."""
    if state.load == MASKED:
        return f"systemctl unmask {unit} lets it be started"
    if state.load != "not-found":
        return f"systemd-analyze verify {unit} says what is wrong; systemctl daemon-reload has a new file read"
    full = unit if unit.endswith(SUFFIXES) else f"{unit}.service"
    near = _nearest(full, known)
    return "\n".join(
        [
            f"is it one of: {', '.join(near)}?" if near else "no unit has a name like it",
            "where its file is new: systemctl daemon-reload; where something in the background makes it "
            f"(systemd-run): vm.wait_until_succeeds('systemctl is-active {full}') waits for that",
        ]
    )


def _nearest(unit: str, known: Sequence[str]) -> list[str]:
    """Those of `known` that `unit` may be meant for: of its kind, with a name like it."""
    stem, dot, kind = unit.rpartition(".")
    stems = sorted({name.removesuffix(dot + kind) for name in known if name.endswith(dot + kind)})
    return [near + dot + kind for near in difflib.get_close_matches(stem, stems, n=MOST_NAMES)]
