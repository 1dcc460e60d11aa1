"""Waiting until the guest answers, and installing what that needs."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

from pytest_vmsnap.errors import ChannelError, GuestGone, GuestHung
from pytest_vmsnap.guest.boot_watch import BootWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_vmsnap.guest.bootstrap.method import BootstrapMethod
    from pytest_vmsnap.host import Domain

log = logging.getLogger("pytest_vmsnap.bootstrap")

ROUND_SECONDS = 1.0  # between two looks at the methods
ANSWER_SECONDS = 30.0  # for one run of the install script
FIRST_TRY_SECONDS = 5.0  # before anything is installed: a clone has it already, and may be slow to answer


class Bootstrappable(Protocol):
    """A channel that needs a part of it installed in the guest."""

    def greet(self, deadline: float) -> bool:
        """Return whether the guest's part answers by the `deadline` (monotonic clock)."""

    def install_script(self) -> str:
        """Return the POSIX ``sh`` script that installs it, run as root in the guest; twice does no harm."""


def connect_or_install(
    channel: Bootstrappable,
    domain: Callable[[], Domain],
    methods: Sequence[BootstrapMethod],
    *,
    at_boot: bool,
    timeout: float,
) -> None:
    """Return when the guest answers on `channel`; install what that needs if it does not answer by itself.

    With `at_boot` the guest is known to start it, and for half of the time nothing is installed. Raises
    `GuestGone` if the guest ended, `BootError` if its boot has come to a dead end, `GuestHung` if it visibly
    hangs, or after `timeout` seconds with the reason why each method failed.
    """
    started = time.monotonic()
    deadline = started + timeout
    patience = timeout / 2 if at_boot else min(timeout / 2, FIRST_TRY_SECONDS)
    failed: dict[str, str] = {}
    watch = BootWatch(domain)
    try:
        while not channel.greet(min(deadline, time.monotonic() + ROUND_SECONDS)):
            if (now := time.monotonic()) >= deadline:
                break
            watch.look()
            # the console method would press Enter in emergency mode, and take its shell for the system's
            if methods and now > started + patience and not watch.suspects:
                _try(methods, failed, channel.install_script(), deadline)
        else:
            return
    finally:
        for method in methods:
            method.close()
    reasons = [f"{method.name}: {failed.get(method.name) or method.problem()}" for method in methods]
    tried = f"; no method to install it worked: {'; '.join(reasons)}" if methods else ""
    raise GuestHung(f"it did not answer within {timeout:.0f} s{tried}", console=domain().console_text())


def _try(methods: Sequence[BootstrapMethod], failed: dict[str, str], script: str, deadline: float) -> None:
    """Install with the first method that is ready; try each at most once."""
    for method in methods:
        if method.name in failed or not method.is_ready():
            continue
        try:
            method.run_as_root(script, timeout=max(1.0, min(ANSWER_SECONDS, deadline - time.monotonic())))
        except GuestGone:
            raise
        except ChannelError as error:
            failed[method.name] = error.message
            log.info("installing by %s: %s", method.name, error.message)
            continue
        finally:
            method.close()  # it is tried once
        failed[method.name] = "the install script ran, but nothing answered"
        log.info("installed by %s", method.name)
        return
