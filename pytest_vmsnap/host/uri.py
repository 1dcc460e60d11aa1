"""Which libvirt runs the machines: design §11."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pytest_vmsnap.errors import HostError

Mode = Literal["session", "system", "embed"]

SESSION = "qemu:///session"
SYSTEM = "qemu:///system"
EMBED = "qemu:///embed"

# libvirt.org, "Daemons": the modular daemon's socket, then the monolithic one's
SYSTEM_SOCKETS = (Path("/run/libvirt/virtqemud-sock"), Path("/run/libvirt/libvirt-sock"))


@dataclass(frozen=True, slots=True, kw_only=True)
class UriChoice:
    """The libvirt that is used: its `uri`, its `mode`, and the `reason` for the choice."""

    uri: str
    mode: Mode
    reason: str


def choose(wanted: str | None, *, uid: int, system_answers: bool) -> UriChoice:
    """The libvirt for the user `uid`; `wanted` is the option's value, or None.

    Raises `HostError` for a URI that is no QEMU on this host.
    """
    if wanted is not None:
        return UriChoice(uri=wanted, mode=_mode(wanted), reason="vmsnap_uri")
    if uid != 0:
        return UriChoice(uri=SESSION, mode="session", reason="ordinary user")
    if system_answers:
        return UriChoice(uri=SYSTEM, mode="system", reason="root, and the system's daemon answers")
    return UriChoice(uri=EMBED, mode="embed", reason="root, and no daemon answers")


def _mode(uri: str) -> Mode:
    modes: dict[str, Mode] = {SESSION: "session", SYSTEM: "system", EMBED: "embed"}
    if mode := modes.get(uri):
        return mode
    allowed = f"allowed are {', '.join(modes)}"
    scheme, _, place = uri.partition("://")
    if "+" in scheme or not place.startswith("/"):
        raise HostError(
            f"vmsnap_uri={uri}: a libvirt on another host is not supported, since memory is shared by a file",
            hint=allowed,
        )
    raise HostError(f"vmsnap_uri={uri}: not a libvirt that this plugin knows", hint=allowed)


def system_daemon_answers() -> bool:
    """Whether something accepts connections on the socket of the system's libvirt daemon."""
    return any(_accepts(path) for path in SYSTEM_SOCKETS)


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2.0)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True
