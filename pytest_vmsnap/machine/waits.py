"""Waiting for something in the guest."""

from __future__ import annotations

import re
import shlex
import time
from typing import TYPE_CHECKING, TypeVar

from pytest_vmsnap.errors import CommandFailed, WaitTimeout
from pytest_vmsnap.machine import services, systemd_units, tcp_ports
from pytest_vmsnap.machine.commands import Commands

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_vmsnap.machine.console import ConsoleMark
    from pytest_vmsnap.machine.services import ServiceState
    from pytest_vmsnap.machine.systemd_units import UnitState
    from pytest_vmsnap.model import Result

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0
JOURNAL_LINES = 30


class Waits(Commands):
    """A machine's waits. Each raises `WaitTimeout` after `timeout` seconds (None means the option's)."""

    def wait_until_succeeds(
        self, cmd: str | Sequence[str], *, timeout: float | None = None, interval: float | None = None
    ) -> str:
        """Run a command until it succeeds; return its stdout.

        `interval` is the pause between two attempts in seconds; by default, pauses grow from 0.05 to 1 s.
        Raises `WaitTimeout`, with the output of the last attempt, after `timeout` seconds (None means the
        option's), and `CommandTimeout` if a single attempt takes longer than that.
        """
        __tracebackhide__ = True
        return self._until_status(cmd, lambda status: status == 0, "succeed", timeout, interval)

    def wait_until_fails(
        self, cmd: str | Sequence[str], *, timeout: float | None = None, interval: float | None = None
    ) -> str:
        """Run a command until it fails; return its stdout. Otherwise like `wait_until_succeeds`."""
        __tracebackhide__ = True
        return self._until_status(cmd, lambda status: status != 0, "fail", timeout, interval)

    def _until_status(
        self,
        cmd: str | Sequence[str],
        wanted: Callable[[int], bool],
        verb: str,
        timeout: float | None,
        interval: float | None,
    ) -> str:
        __tracebackhide__ = True
        text = cmd if isinstance(cmd, str) else shlex.join(cmd)
        last: list[Result] = []

        def attempt() -> Result | None:
            last[:] = [self.run(cmd, timeout=timeout)]
            return last[0] if wanted(last[0].returncode) else None

        return self._poll(attempt, f"{text!r} to {verb}", timeout, interval, lambda: _shown(last)).text

    def wait_until(self, probe: Callable[[], T], *, timeout: float | None = None) -> T:
        """Call `probe` until it returns a true value; return that value.

        An exception in `probe` ends the wait. Raises `WaitTimeout`, with the last value, after `timeout`
        seconds (None means the option's).
        """
        __tracebackhide__ = True
        seen: list[object] = []

        def attempt() -> T | None:
            value = probe()
            seen[:] = [value]
            return value or None

        name = getattr(probe, "__name__", repr(probe))
        return self._poll(attempt, f"{name}() to be true", timeout, None, lambda: f"it returned {seen[0]!r}")

    def wait_for_unit(self, unit: str, *, user: str | None = None, timeout: float | None = None) -> None:
        """Wait until a systemd unit is active; with `user`, a unit of that user's own service manager.

        Keeps waiting for a unit that is loaded and inactive, because a unit that is about to start looks the
        same. Raises `CommandFailed` at once if the unit failed (with its journal), or if it cannot become
        active: systemd does not know it, cannot use its file, or it is masked. Raises `WaitTimeout`, with its
        journal, after `timeout` seconds (None means the option's).
        """
        __tracebackhide__ = True
        manager = "systemctl" if user is None else f"systemctl --user --machine={shlex.quote(user)}@.host"
        last: list[UnitState] = []

        def attempt() -> bool | None:
            result = self.run(systemd_units.show(manager, unit), timeout=timeout, check=True)
            state = systemd_units.parsed(result.text)
            last[:] = [state]
            if state.active == "failed":
                raise CommandFailed(f"the unit {unit} failed\n{self._journal(unit, user)}", result=result)
            if trouble := systemd_units.inactive_reason(unit, state):
                known = self.run(systemd_units.names(of_user=user is not None)).text.split()
                raise CommandFailed(f"{trouble}\n{systemd_units.advice(unit, state, known)}", result=result)
            return state.active == "active" or None

        self._poll(
            attempt,
            f"the unit {unit} to be active",
            timeout,
            None,
            lambda: f"{last[0].active}\n{self._journal(unit, user)}",
        )

    def _journal(self, unit: str, user: str | None) -> str:
        whose = "-u" if user is None else "--user-unit"
        command = f"journalctl --no-pager -o short-monotonic -n {JOURNAL_LINES} {whose} {shlex.quote(unit)}"
        return self.run(command).text

    def wait_for_service(self, service: str, *, timeout: float | None = None) -> None:
        """Wait until a service of the guest's init runs: systemd, OpenRC, runit or sysvinit.

        With systemd this is `wait_for_unit`; sysvinit, and busybox with scripts in ``/etc/init.d``, are asked
        by the script's ``status``. Raises `CommandFailed` at once if the init does not know the
        service, or OpenRC says that it has crashed; `WaitTimeout`, with the service's own words, after
        `timeout` seconds (None means the option's).
        """
        __tracebackhide__ = True
        last: list[ServiceState] = []

        def attempt() -> bool | None:
            result = self.run(services.question(service), timeout=timeout, check=True)
            found = services.parsed(result.text)
            last[:] = [found]
            if trouble := services.unknown_reason(service, found):
                raise CommandFailed(trouble, result=result)
            return found.state == "active" or None

        if self.run("test -d /run/systemd/system").returncode == 0:
            self.wait_for_unit(service, timeout=timeout)
            return
        self._poll(attempt, f"the service {service} to run", timeout, None, lambda: last[0].words)

    def wait_for_file(self, path: str, *, timeout: float | None = None) -> None:
        """Wait until `path` exists in the guest; raises `WaitTimeout` after `timeout` seconds."""
        __tracebackhide__ = True
        command = f"[ -e {shlex.quote(path)} ]"

        def attempt() -> bool | None:
            return self.run(command, timeout=timeout).returncode == 0 or None

        self._poll(attempt, f"{path} to exist", timeout, None, lambda: "")

    def wait_for_open_port(
        self, port: int, *, address: str = "localhost", timeout: float | None = None
    ) -> None:
        """Wait until something listens on a TCP port, as seen from the guest.

        For the guest's own loopback address, it reads the kernel's tables, so the service sees no connection.
        For another `address`, it connects with nc or bash; raises `CommandFailed` if the guest has neither.
        Raises `WaitTimeout` after `timeout` seconds (None
        means the option's).
        """
        __tracebackhide__ = True
        self._port(port, address, True, timeout)

    def wait_for_closed_port(
        self, port: int, *, address: str = "localhost", timeout: float | None = None
    ) -> None:
        """Wait until nothing listens on a TCP port. Otherwise like `wait_for_open_port`."""
        __tracebackhide__ = True
        self._port(port, address, False, timeout)

    def _port(self, port: int, address: str, is_open: bool, timeout: float | None) -> None:
        __tracebackhide__ = True
        last: list[Result] = []

        def attempt() -> bool | None:
            last[:] = [self.run(tcp_ports.command(port, address), timeout=timeout)]
            if last[0].returncode == tcp_ports.NO_TOOL:
                raise CommandFailed(
                    f"port {port} of {address} cannot be tested: the guest has neither nc nor bash "
                    "(install one of them, e.g. with vmsnap_packages)",
                    result=last[0],
                )
            return tcp_ports.is_open(last[0], port, address) == is_open or None

        wanted = f"port {port} of {address} to be {'open' if is_open else 'closed'}"
        self._poll(attempt, wanted, timeout, None, lambda: tcp_ports.describe(last[0], address))

    def wait_for_console_text(self, pattern: str, *, timeout: float | None = None) -> re.Match[str]:
        """Wait until text on the serial console matches the regular expression `pattern`; return the match.

        Searches everything that the console showed since the test began, or since the last revert. Raises
        `WaitTimeout`, with the console's last lines, after `timeout` seconds (None means the option's).
        """
        __tracebackhide__ = True
        self._expect_usable()
        compiled = re.compile(pattern)
        seen: list[ConsoleMark] = []  # the piece that was searched last

        def attempt() -> re.Match[str] | None:
            for place, text in self._history.console_pieces(seen[0] if seen else None):
                seen[:] = [place]
                if found := compiled.search(text):
                    return found
            return None

        return self._poll(attempt, f"{pattern!r} on the console", timeout, None, lambda: self.console_log)

    def _poll(
        self,
        attempt: Callable[[], T | None],
        what: str,
        timeout: float | None,
        interval: float | None,
        detail: Callable[[], str],
    ) -> T:
        """Call `attempt` until it returns something, with growing pauses; `WaitTimeout` at the deadline."""
        __tracebackhide__ = True
        seconds = self._deadlines.seconds(timeout)
        deadline = time.monotonic() + seconds
        pause = interval or FIRST_PAUSE_SECONDS
        while True:
            found = attempt()
            if found is not None:
                return found
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeout(f"waited {seconds:g} s for {what}", detail=detail())
            time.sleep(min(pause, left))  # the guest cannot notify the host
            pause = interval or min(pause * 1.5, LONGEST_PAUSE_SECONDS)


def _shown(last: list[Result]) -> str:
    if not last:
        return ""
    result = last[0]
    streams = result.stdout.decode(errors="replace") + result.stderr.decode(errors="replace")
    return f"status {result.returncode}\n{streams}"
