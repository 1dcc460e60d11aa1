"""A machine's power."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import SHOWN_BYTES, ChannelError, GuestGone, GuestHung, WaitTimeout
from pytest_vmsnap.guest import Request, settle
from pytest_vmsnap.machine.commands import Commands
from pytest_vmsnap.readable import last_line

if TYPE_CHECKING:
    from collections.abc import Iterator

BOOT_SECONDS = 120.0
POLL_SECONDS = 0.2
SAYING_SECONDS = 30.0  # for the command, whose answer may be lost in the reboot

# the command returns before the guest goes down
REBOOT = "(systemctl reboot || reboot) >/dev/null 2>&1 &"
POWER_OFF = "(systemctl poweroff || poweroff) >/dev/null 2>&1 &"


class Power(Commands):
    """A machine's power. Timeouts are in seconds; a boot has two minutes by default."""

    def start(self) -> None:
        """Boot a machine that is off, and wait until the boot has finished. Does nothing if it is on.

        Raises `BootError` with the console if the boot gets stuck, for example in systemd's emergency mode;
        `GuestHung` if the guest does not come up within two minutes; `GuestGone` if QEMU ends.
        """
        __tracebackhide__ = True
        self._expect_usable()
        if self._backend.domain.condition() == "stopped":
            self._backend.boot()
            seconds = self._boot_seconds(None)
            with self._booting(f"booting {self._history.title}"):
                self._connect(seconds)
                settle(self._channel, self._backend.domain, timeout=seconds)

    def shutdown(self, *, timeout: float | None = None) -> None:
        """Ask the guest to power off, and wait until it is off. Does nothing if it is off.

        `timeout` is in seconds; None means the option's. Raises `WaitTimeout` with the console's last lines if
        the machine stays on.
        """
        __tracebackhide__ = True
        self._expect_usable()
        if self._backend.domain.condition() == "stopped":
            return
        seconds = self._deadlines.seconds(timeout)
        deadline = time.monotonic() + seconds
        with suppress(GuestGone, GuestHung):  # the guest may go down before it answers
            self._channel.run(Request(text=POWER_OFF), timeout=seconds)
        while self._backend.domain.condition() != "stopped":
            if time.monotonic() > deadline:
                shown = self._history.console(SHOWN_BYTES)
                last = last_line(shown)
                raise WaitTimeout(
                    f"the machine did not power off within {seconds:g} s"
                    + (f"; its console says: {last}" if last else "; its console says nothing"),
                    hint="give it more time with timeout=, or cut its power with vm.crash()",
                    detail=shown,
                )
            self._backend.domain.events.wait(POLL_SECONDS)

    def reboot(self, *, timeout: float | None = None) -> None:
        """Reboot the guest from within, and wait until the new boot has finished.

        `timeout` is in seconds; None means two minutes. Raises `BootError` with the console if the boot gets
        stuck, for example in systemd's emergency mode; `GuestHung` if the kernel panics; `WaitTimeout` if the
        guest does not come back; `GuestGone` if QEMU ends.
        """
        __tracebackhide__ = True
        self._expect_usable()
        seconds = self._boot_seconds(timeout)
        deadline = time.monotonic() + seconds
        before = self._channel.boot_id(timeout=seconds)
        self._backend.domain.mark_boot()
        with suppress(GuestGone, GuestHung):
            self._channel.run(Request(text=REBOOT), timeout=min(seconds, SAYING_SECONDS))
        with self._booting(f"rebooting {self._history.title}"):
            while not self._came_back(before, deadline):
                if time.monotonic() > deadline:
                    raise WaitTimeout(
                        f"the machine did not reboot within {seconds:g} s", detail=self.console_log
                    )
                self._backend.domain.events.wait(POLL_SECONDS)
            settle(self._channel, self._backend.domain, timeout=max(1.0, deadline - time.monotonic()))

    def crash(self) -> None:
        """Cut the power: QEMU ends at once, and data that was not synced is lost. `start` boots it again."""
        __tracebackhide__ = True
        self._expect_usable()
        self._backend.cut_power()

    def pause(self) -> None:
        """Stop the processors: the guest does not answer before `resume`."""
        __tracebackhide__ = True
        self._expect_usable()
        self._backend.domain.suspend()

    def resume(self) -> None:
        """Let the processors run again, after `pause`."""
        __tracebackhide__ = True
        self._expect_usable()
        self._backend.domain.resume()

    @contextmanager
    def _booting(self, what: str) -> Iterator[None]:
        """Show the step `what` with the console's last line."""
        with self._progress.step(what) as step:
            step.follow(lambda: self._backend.domain.console_line())
            yield

    def _boot_seconds(self, timeout: float | None) -> float:
        return self._deadlines.seconds(BOOT_SECONDS if timeout is None else timeout)

    def _connect(self, seconds: float) -> None:
        try:
            self._channel.open(timeout=seconds)
        except (GuestGone, GuestHung) as error:
            raise self._explained("during the boot", error) from error

    def _came_back(self, before: str, deadline: float) -> bool:
        """Return whether the guest answers, and with another boot ID than `before`."""
        left = max(1.0, deadline - time.monotonic())
        try:
            return self._channel.boot_id(timeout=left) != before
        except GuestGone as error:
            raise self._explained("during the reboot", error) from error
        except ChannelError as error:  # it is going down or coming up
            if self._backend.domain.stall_reason():
                raise self._explained("during the reboot", error) from error
            return False
