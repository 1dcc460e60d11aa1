"""What is known about a guest since before it was saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reseeder = Literal["kernel", "perl", "python3", "nothing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestNotes:
    """Facts about a guest that are also true for each of its clones, so that no clone needs to be asked.

    `reseeder` is what gives a clone random numbers of its own, `boot` is the boot id, `shells` are the process
    ids of the guest shells by slot; the last two are empty if the channel does not need them.
    """

    reseeder: Reseeder
    boot: str = ""
    shells: tuple[int, ...] = ()
