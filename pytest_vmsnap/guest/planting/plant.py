"""Which way of planting works, and waiting until the shell answers."""

from __future__ import annotations

import logging
import time
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Protocol

from pytest_vmsnap.errors import ChannelError, GuestGone, GuestHung
from pytest_vmsnap.guest.shell import source, unit
from pytest_vmsnap.model import Additions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_vmsnap.guest.shell import ShellChannel
    from pytest_vmsnap.host import Domain

log = logging.getLogger("pytest_vmsnap.planting")

ROUND_SECONDS = 0.5  # between two looks at the ways
ANSWER_SECONDS = 30.0  # for the planted shell's first answer


class Way(Protocol):
    """A way into a guest whose shell is not planted yet."""

    name: str

    def is_ready(self) -> bool:
        """Whether it can be gone now; false while the guest boots. Takes a second at most."""

    def plant(self, script: str, *, timeout: float) -> None:
        """Run `script` as root; `timeout` in seconds. Raises `ChannelError` where that fails."""

    def problem(self) -> str:
        """Why it was not ready in the end, in words for the person who made the image."""


def additions() -> Additions:
    """What an image needs for the shell to be there from its first boot, and nobody to have to plant it."""
    place, units = "/usr/lib/vmsnap", "/etc/systemd/system"
    template = unit().replace("@place@", place)
    wants = f"{units}/multi-user.target.wants/vmsnap-shell.service"
    return Additions(
        files=((f"{place}/shell", source()), (f"{units}/vmsnap-shell.service", template)),
        links=((wants, "../vmsnap-shell.service"),),
    )


@cache
def script() -> str:
    """What is run in the guest as root: a script for POSIX ``sh``."""
    text = (files(__package__) / "plant.sh").read_text(encoding="utf-8")
    for name, part in {"@shell@": source(), "@unit@": unit()}.items():
        text = text.replace(name, part.rstrip("\n"))
    return text


def plant(
    channel: ShellChannel,
    domain: Callable[[], Domain],
    ways: Sequence[Way],
    *,
    patience: float,
    timeout: float,
) -> str:
    """Have the shell planted, and return when it answers: the way that was taken, or ``image`` if none was.

    A shell that the image starts itself needs none: for `patience` seconds nothing else is tried. Raises
    `GuestGone` where the guest ended, `GuestHung` where its kernel panicked, or after `timeout` seconds, with
    what kept each way.
    """
    started = time.monotonic()
    deadline = started + timeout
    failed: dict[str, str] = {}
    while time.monotonic() < deadline:
        if channel.greet(min(deadline, time.monotonic() + ROUND_SECONDS)):
            return "image"
        if trouble := domain().trouble():
            raise GuestHung(trouble)
        for way in ways if time.monotonic() > started + patience else ():
            if way.name in failed or not way.is_ready():
                continue
            try:
                way.plant(script(), timeout=max(1.0, deadline - time.monotonic()))
            except GuestGone:
                raise
            except ChannelError as error:
                failed[way.name] = error.message
                log.info("planting by %s: %s", way.name, error.message)
                continue
            try:
                channel.open(timeout=min(ANSWER_SECONDS, deadline - time.monotonic()))
            except GuestHung:
                failed[way.name] = "it was planted, and did not answer"
                continue
            log.info("planted by %s", way.name)
            return way.name
    reasons = [f"{way.name}: {failed.get(way.name) or way.problem()}" for way in ways]
    raise GuestHung("no way into the guest: " + "; ".join(reasons))
