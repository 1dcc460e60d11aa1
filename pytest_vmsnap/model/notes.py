"""What is known of a guest from before it was saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reseeder = Literal["kernel", "perl", "python3", "nothing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestNotes:
    """What holds of every clone too, so that none is asked for it again.

    `reseeder` is what gives it random numbers of its own, `boot` its boot id, `shells` the process ids of the
    planted shells by slot; the last two are empty where its channel has no need of them.
    """

    reseeder: Reseeder
    boot: str = ""
    shells: tuple[int, ...] = ()
