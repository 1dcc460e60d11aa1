"""A machine's power."""

from __future__ import annotations

import time
from contextlib import suppress

from pytest_vmsnap.errors import SHOWN_BYTES, ChannelError, GuestGone, GuestHung, WaitTimeout
from pytest_vmsnap.guest import Request, settle
from pytest_vmsnap.machine.commands import Commands
from pytest_vmsnap.readable import readable

BOOT_SECONDS = 120.0
POLL_SECONDS = 0.2
SAYING_SECONDS = 30.0  # for a command whose answer may be lost with the boot

# the command returns before the guest goes down
REBOOT = "(systemctl reboot || reboot) >/dev/null 2>&1 &"
POWER_OFF = "(systemctl poweroff || poweroff) >/dev/null 2>&1 &"


class Power(Commands):
    """A machine's power: off, on, and cut. Time-outs are in seconds; what boots has two minutes by default."""

    def start(self) -> None:
        """Boot it again after it ended; returns when its boot has come to its end. Nothing happens if it runs.

        Raises `BootError` with the console where its boot has come to a dead end, such as systemd's emergency
        mode, `GuestHung` where it does not come up.
        """
        __tracebackhide__ = True
        self._expect_usable()
        if self._body.domain.condition() == "stopped":
            self._body.boot()
            seconds = self._boot_seconds(None)
            self._connect(seconds)
            settle(self._channel, self._body.domain, timeout=seconds)

    def shutdown(self, *, timeout: float | None = None) -> None:
        """Ask the guest to power off, and wait until it has; nothing happens if it is off.

        `timeout` in seconds, None for the option's. Raises `WaitTimeout` where it stays on, with what its
        console showed last: what it still does.
        """
        __tracebackhide__ = True
        self._expect_usable()
        if self._body.domain.condition() == "stopped":
            return
        seconds = self._deadlines.seconds(timeout)
        deadline = time.monotonic() + seconds
        with suppress(GuestGone, GuestHung):  # it may be quicker than its answer
            self._channel.run(Request(text=POWER_OFF), timeout=seconds)
        while self._body.domain.condition() != "stopped":
            if time.monotonic() > deadline:
                shown = self._trail.console(SHOWN_BYTES)
                last = readable(shown).strip().rpartition("\n")[2].strip()
                raise WaitTimeout(
                    f"the machine did not power off within {seconds:g} s"
                    + (f"; its console says: {last}" if last else "; its console says nothing"),
                    hint="give it more time with timeout=, or cut its power with vm.crash()",
                    detail=shown,
                )
            self._body.domain.events.wait(POLL_SECONDS)

    def reboot(self, *, timeout: float | None = None) -> None:
        """Reboot from within, and wait until the new boot has come to its end.

        Raises `BootError` with the console where its boot has come to a dead end, such as systemd's emergency
        mode, `GuestHung` where its kernel panicked, `WaitTimeout` where it does not come back.
        """
        __tracebackhide__ = True
        self._expect_usable()
        seconds = self._boot_seconds(timeout)
        deadline = time.monotonic() + seconds
        before = self._channel.boot_id(timeout=seconds)
        self._body.domain.mark_boot()
        with suppress(GuestGone, GuestHung):
            self._channel.run(Request(text=REBOOT), timeout=min(seconds, SAYING_SECONDS))
        while not self._came_back(before, deadline):
            if time.monotonic() > deadline:
                raise WaitTimeout(f"the machine did not reboot within {seconds:g} s", detail=self.console_log)
            self._body.domain.events.wait(POLL_SECONDS)
        settle(self._channel, self._body.domain, timeout=max(1.0, deadline - time.monotonic()))

    def crash(self) -> None:
        """Cut its power: QEMU ends at once, and what the guest had not synced is lost. `start` boots again."""
        __tracebackhide__ = True
        self._expect_usable()
        self._body.cut_power()

    def pause(self) -> None:
        """Stop its processors where they are."""
        __tracebackhide__ = True
        self._expect_usable()
        self._body.domain.suspend()

    def resume(self) -> None:
        """Let its processors go on."""
        __tracebackhide__ = True
        self._expect_usable()
        self._body.domain.resume()

    def _boot_seconds(self, timeout: float | None) -> float:
        return self._deadlines.seconds(BOOT_SECONDS if timeout is None else timeout)

    def _connect(self, seconds: float) -> None:
        try:
            self._channel.open(timeout=seconds)
        except (GuestGone, GuestHung) as error:
            raise self._explained("while it booted", error) from error

    def _came_back(self, before: str, deadline: float) -> bool:
        """Whether the guest answers, and is another boot than `before`."""
        left = max(1.0, deadline - time.monotonic())
        try:
            return self._channel.boot_id(timeout=left) != before
        except GuestGone as error:
            raise self._explained("while it rebooted", error) from error
        except ChannelError as error:  # it is on its way down or up
            if self._body.domain.trouble():
                raise self._explained("while it rebooted", error) from error
            return False
