"""What a QEMU can do, as it says itself: its version says little, for distributions choose and patch.

QEMU, "QMP reference": ``query-migrate-capabilities`` and ``query-qmp-schema``. Whoever asks gives the way to:
the monitor of a machine that runs, or of an emulator that was started for the purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Ask = Callable[[str], Any]

IGNORE_SHARED = "x-ignore-shared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What this QEMU can do.

    `file_address`: migration to ``file:PATH``; `sealed_memory`: ``readonly=on,rom=off`` of a memory file.
    """

    file_address: bool
    sealed_memory: bool

    def __str__(self) -> str:
        return (
            f"device state by {'file:' if self.file_address else 'fd:'}, "
            f"memory file {'read-only (rom=off)' if self.sealed_memory else 'opened for writing, checked'}"
        )


def abilities_of(ask: Ask) -> Abilities:
    """Those of the QEMU that answers `ask`; raises `HostError` where it cannot leave shared memory in place."""
    if not any(entry["capability"] == IGNORE_SHARED for entry in ask("query-migrate-capabilities")):
        raise HostError(
            f"this QEMU lacks the migration capability {IGNORE_SHARED}", hint="QEMU 7.2 or later has it"
        )
    schema = ask("query-qmp-schema")
    return Abilities(
        file_address=any({"socket", "exec", "file"} <= set(_values(entry)) for entry in schema),
        sealed_memory=any({"mem-path", "rom"} <= set(_members(entry)) for entry in schema),
    )


def has_user_network(ask: Ask) -> bool:
    """Whether the QEMU that answers `ask` was built with user-mode networking (slirp)."""
    return any({"nic", "tap", "user"} <= set(_values(entry)) for entry in ask("query-qmp-schema"))


def _values(entry: dict[str, Any]) -> Iterator[str]:
    """The values of an enumeration of QEMU's schema."""
    yield from entry.get("values", ()) if entry["meta-type"] == "enum" else ()


def _members(entry: dict[str, Any]) -> Iterator[str]:
    """The names of the members of an object of QEMU's schema."""
    yield from (m["name"] for m in entry["members"]) if entry["meta-type"] == "object" else ()
