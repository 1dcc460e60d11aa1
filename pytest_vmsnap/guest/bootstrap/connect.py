"""Waiting until the guest answers, and installing what that needs."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

from pytest_vmsnap.errors import ChannelError, GuestGone, GuestHung
from pytest_vmsnap.guest.boot_watch import BootWatch
from pytest_vmsnap.guest.bootstrap.method import LoginRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_vmsnap.guest.bootstrap.method import BootstrapMethod
    from pytest_vmsnap.host import Domain

log = logging.getLogger("pytest_vmsnap.bootstrap")

ROUND_SECONDS = 1.0  # between two looks at the methods
REFUSALS = 3  # of a login; cloud-init, for one, sets passwords after the login prompt has come
REFUSED_PAUSE = 1 / 8  # of the timeout, before the next attempt
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
    hangs or refuses the login, or after `timeout` seconds with the reason why each method failed.
    """
    started = time.monotonic()
    deadline = started + timeout
    patience = timeout / 2 if at_boot else min(timeout / 2, FIRST_TRY_SECONDS)
    installation = _Installation(methods, pause=timeout * REFUSED_PAUSE)
    watch = BootWatch(domain)
    try:
        while not channel.greet(min(deadline, time.monotonic() + ROUND_SECONDS)):
            if (now := time.monotonic()) >= deadline:
                break
            watch.look()
            # the console method would press Enter in emergency mode, and take its shell for the system's
            if methods and now > started + patience and not watch.suspects:
                installation.attempt(channel.install_script(), deadline)
        else:
            return
    except LoginRefused as error:
        raise GuestHung(installation.reasons(), console=domain().console_text()) from error
    finally:
        for method in methods:
            method.close()
    tried = f"; no method to install it worked: {installation.reasons()}" if methods else ""
    raise GuestHung(f"it did not answer within {timeout:.0f} s{tried}", console=domain().console_text())


class _Installation:
    """What has come of each method: it is tried once, or a few times if the guest refuses the login."""

    def __init__(self, methods: Sequence[BootstrapMethod], pause: float) -> None:
        self._methods = methods
        self._pause = pause
        self._has_run = False
        self._failed: dict[str, str] = {}
        self._refusals: dict[str, list[str]] = {}
        self._again = 0.0  # monotonic clock

    def attempt(self, script: str, deadline: float) -> None:
        """Install with the first method that is ready.

        Raises `LoginRefused` after the last refusal, if no other method has run the script.
        """
        for method in self._methods:
            if method.name in self._failed or not self._may_log_in(method) or not method.is_ready():
                continue
            try:
                method.run_as_root(script, timeout=max(1.0, min(ANSWER_SECONDS, deadline - time.monotonic())))
            except GuestGone:
                raise
            except LoginRefused as error:
                self._note_refusal(method, error)
                continue
            except ChannelError as error:
                self._failed[method.name] = error.message
                log.info("installing by %s: %s", method.name, error.message)
                continue
            finally:
                method.close()
            self._failed[method.name] = "the install script ran, but nothing answered"
            self._has_run = True
            log.info("installed by %s", method.name)
            return

    def reasons(self) -> str:
        """Why each method did not work."""
        refused = {name: messages[-1] for name, messages in self._refusals.items()}
        return "; ".join(
            f"{method.name}: {self._failed.get(method.name) or refused.get(method.name) or method.problem()}"
            for method in self._methods
        )

    def _may_log_in(self, method: BootstrapMethod) -> bool:
        return method.name not in self._refusals or time.monotonic() >= self._again

    def _note_refusal(self, method: BootstrapMethod, error: LoginRefused) -> None:
        messages = self._refusals.setdefault(method.name, [])
        messages.append(error.message)
        self._again = time.monotonic() + self._pause
        log.info("installing by %s: %s", method.name, error.message)
        if len(messages) == REFUSALS:
            self._failed[method.name] = f"{error.message} ({REFUSALS} attempts)"
            if not self._has_run:
                raise error
