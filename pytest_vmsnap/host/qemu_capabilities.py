"""What a QEMU supports, as it reports itself. Its version proves little: distributions configure and patch it.

QEMU, "QMP reference": ``query-migrate-capabilities`` and ``query-qmp-schema``. The caller passes the function
that sends the commands: to a running machine's monitor, or to an emulator that was started for this.
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
class Capabilities:
    """What this QEMU supports.

    `file_address`: migration to ``file:PATH``; `sealed_memory`: ``readonly=on,rom=off`` for a memory file.
    """

    file_address: bool
    sealed_memory: bool

    def __str__(self) -> str:
        return (
            f"device state by {'file:' if self.file_address else 'fd:'}, "
            f"memory file {'read-only (rom=off)' if self.sealed_memory else 'opened for writing, checked'}"
        )


def query_capabilities(ask: Ask) -> Capabilities:
    """What the QEMU behind `ask` supports; raises `HostError` if it cannot leave shared memory in place."""
    if not any(entry["capability"] == IGNORE_SHARED for entry in ask("query-migrate-capabilities")):
        raise HostError(
            f"this QEMU lacks the migration capability {IGNORE_SHARED}", hint="QEMU 7.2 or later has it"
        )
    schema = ask("query-qmp-schema")
    return Capabilities(
        file_address=any({"socket", "exec", "file"} <= set(_values(entry)) for entry in schema),
        sealed_memory=any({"mem-path", "rom"} <= set(_members(entry)) for entry in schema),
    )


def has_user_network(ask: Ask) -> bool:
    """Whether the QEMU behind `ask` was built with user-mode networking (slirp)."""
    return any({"nic", "tap", "user"} <= set(_values(entry)) for entry in ask("query-qmp-schema"))


def _values(entry: dict[str, Any]) -> Iterator[str]:
    """The values of an enumeration in QEMU's schema."""
    yield from entry.get("values", ()) if entry["meta-type"] == "enum" else ()


def _members(entry: dict[str, Any]) -> Iterator[str]:
    """The names of the members of an object in QEMU's schema."""
    yield from (m["name"] for m in entry["members"]) if entry["meta-type"] == "object" else ()
