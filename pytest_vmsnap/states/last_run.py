"""What a project's last run needed: the key of each of its states, and what it was made from.

`vmsnap states --why` compares it with what there is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.host import write_whole
from pytest_vmsnap.model import digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_vmsnap.store import Store

DIRECTORY = "wanted"  # in the store, with a file for each state of each project


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededState:
    """The `key` of a state, and its `key_parts` (see `cache_key.key_parts`)."""

    key: str
    key_parts: dict[str, str]


def note(store: Store, project: Path, state: str, key: str, key_parts: Mapping[str, str]) -> None:
    """Note what a run of `project` needs for `state`; what an earlier run noted is replaced."""
    (store.path / DIRECTORY).mkdir(mode=0o700, exist_ok=True)
    write_whole(_place(store, project, state), json.dumps({"key": key, "key_parts": dict(key_parts)}) + "\n")


def read(store: Store, project: Path, state: str) -> NeededState | None:
    """What the last run of `project` needed for `state`; None if none did."""
    try:
        return NeededState(**json.loads(_place(store, project, state).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _place(store: Store, project: Path, state: str) -> Path:
    return store.path / DIRECTORY / f"{digest({'project': str(project), 'state': state})}.json"
