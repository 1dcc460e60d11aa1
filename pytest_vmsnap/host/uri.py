"""The choice of the libvirt that runs the machines."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_vmsnap.errors import HostError

if TYPE_CHECKING:
    from pytest_vmsnap.model import Settings

Mode = Literal["session", "system", "embed"]

SESSION = "qemu:///session"
SYSTEM = "qemu:///system"
EMBED = "qemu:///embed"

# libvirt.org, "Daemons": the modular daemon's socket, then the monolithic one's
SYSTEM_SOCKETS = (Path("/run/libvirt/virtqemud-sock"), Path("/run/libvirt/libvirt-sock"))


@dataclass(frozen=True, slots=True, kw_only=True)
class UriChoice:
    """The chosen libvirt: its `uri`, its `mode`, and the `reason` for the choice."""

    uri: str
    mode: Mode
    reason: str


def choose(wanted: str | None, *, uid: int, system_answers: bool) -> UriChoice:
    """Choose the libvirt for the user `uid`; `wanted` is the option's value, or None.

    `system_answers` says whether the system's daemon answers. Raises `HostError` if `wanted` is not a QEMU
    driver on this host.
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
    allowed = f"use one of {', '.join(modes)}"
    scheme, _, place = uri.partition("://")
    if "+" in scheme or not place.startswith("/"):
        raise HostError(
            f"vmsnap_uri={uri}: libvirt must run on this host, because machines share memory in a file",
            hint=allowed,
        )
    raise HostError(f"vmsnap_uri={uri}: this URI is not supported", hint=allowed)


def system_daemon_answers() -> bool:
    """Whether the system's libvirt daemon accepts connections on its socket."""
    return any(_accepts(path) for path in SYSTEM_SOCKETS)


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2.0)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def choose_uri(settings: Settings) -> UriChoice:
    """Choose the libvirt to use, without connecting to it. Raises `HostError` as `choose` does."""
    uid = os.geteuid()
    answers = settings.uri is None and uid == 0 and system_daemon_answers()
    return choose(settings.uri, uid=uid, system_answers=answers)


def default_store(choice: UriChoice | None) -> Path:
    """The store's default directory: pytest-vmsnap in the user's cache directory.

    In system mode root gets a directory below ``/var/cache``: QEMU runs as another user, which cannot reach
    root's home.
    """
    import platformdirs

    if choice and choice.mode == "system" and os.geteuid() == 0:
        return Path("/var/cache/pytest-vmsnap")
    return platformdirs.user_cache_path("pytest-vmsnap")
