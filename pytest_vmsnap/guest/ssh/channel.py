"""SSH as a channel."""

from __future__ import annotations

import secrets
import shlex
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ChannelError, GuestGone, GuestHung
from pytest_vmsnap.guest.bootstrap import connect_or_install
from pytest_vmsnap.guest.channel import (
    BOOT_ID,
    Completed,
    Request,
    content_of,
    put_script,
    set_clock_by_date,
)
from pytest_vmsnap.guest.ssh.connection import SshConnection
from pytest_vmsnap.guest.streams import source_of
from pytest_vmsnap.model import GuestNotes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from pytest_vmsnap.guest.bootstrap import BootstrapMethod
    from pytest_vmsnap.guest.channel import Target
    from pytest_vmsnap.guest.ssh.login import SshLogin
    from pytest_vmsnap.guest.streams import Sink, Source
    from pytest_vmsnap.guest.terminal import Terminal
    from pytest_vmsnap.model import Reseeder

INTERACT_SECONDS = 60.0  # to connect again
PAUSE_SECONDS = 0.5  # between two attempts to connect
LONGEST_SCRIPT = 32 << 10  # bytes; a longer one goes through a file (Linux: an argument has at most 128 KiB)


class SshChannel:
    """SSH to the machine at `target`; one of `methods` installs our key in the guest."""

    name = "ssh"
    needs_network = True

    def __init__(
        self,
        target: Target,
        login: SshLogin,
        *,
        methods: Sequence[BootstrapMethod] = (),
        scaled: Callable[[float], float] = float,
    ) -> None:
        self._site = target
        self._login = login
        self._methods = methods
        self._connection = SshConnection(target, login, scaled=scaled)

    def connect(self) -> None:
        """Do nothing: a connection from before a save is dead, and `open` makes a new one."""

    def open(self, *, timeout: float) -> None:
        connect_or_install(self, lambda: self._site.domain, self._methods, at_boot=False, timeout=timeout)

    def install_script(self) -> str:
        """Return the script that installs our key in the guest."""
        return self._login.install_script()

    def greet(self, deadline: float) -> bool:
        """Return whether a command can be run by the `deadline` (monotonic clock)."""
        while True:
            try:
                self._connection.connect(deadline)
                return self._connection.execute("true", None, timeout=PAUSE_SECONDS * 10).status == 0
            except (GuestGone, GuestHung):
                raise
            except ChannelError:
                if self._site.domain.condition() == "stopped":
                    raise GuestGone(f"{self._site.domain.name} has ended") from None
                if (left := deadline - time.monotonic()) <= 0:
                    return False
                time.sleep(min(PAUSE_SECONDS, left))  # no event says when sshd is there

    def notes(self, reseeder: Reseeder, *, timeout: float) -> GuestNotes:  # noqa: ARG002 - the protocol
        return GuestNotes(reseeder=reseeder)

    def known_notes(self, reseeder: Reseeder) -> GuestNotes:
        return GuestNotes(reseeder=reseeder)

    def idle(self, *, timeout: float) -> AbstractContextManager[None]:  # noqa: ARG002 - the protocol
        return nullcontext()  # what runs belongs to a connection that clones do not have

    def ping(self) -> None:
        pass

    def check(self, *, timeout: float) -> None:
        if not (self._connection.is_alive() and self._connection.ping(timeout)):
            raise GuestHung("the guest does not answer", console=self._site.domain.console_text())

    def boot_id(self, *, timeout: float) -> str:
        self.open(timeout=timeout)
        return content_of(self, BOOT_ID, timeout=timeout).decode()

    def close(self) -> None:
        self._connection.close()

    def run(self, request: Request, *, timeout: float) -> Completed:
        script = request.script()
        if len(script) > LONGEST_SCRIPT:
            place = self._execute(
                'umask 077; file=$(mktemp) && cat >"$file" && echo "$file"', source_of(script.encode()), timeout
            )
            path = shlex.quote(place.stdout.decode().strip())
            script = f'vmsnap_script=$(cat {path}; echo .); rm -f {path}; eval "${{vmsnap_script%.}}"'
        out, err = request.sinks()
        return self._execute(script, request.source, timeout, out=out, err=err, transfer=request.transfer)

    def _execute(
        self,
        script: str,
        source: Source | None,
        timeout: float,
        *,
        out: Sink | None = None,
        err: Sink | None = None,
        transfer: bool = False,
    ) -> Completed:
        if not self._connection.is_alive():
            self.open(timeout=timeout)
        return self._connection.execute(script, source, timeout=timeout, out=out, err=err, transfer=transfer)

    def interact(self, terminal: Terminal) -> None:
        if not self._connection.is_alive():
            self.open(timeout=INTERACT_SECONDS)
        self._connection.interact(terminal)

    def set_clock(self, *, timeout: float) -> None:
        def run(command: str, seconds: float) -> Completed:
            return self._execute(command, None, seconds)

        set_clock_by_date(run, self._site.domain, timeout)

    def put(self, path: str, data: bytes, *, timeout: float) -> None:
        __tracebackhide__ = True
        script = put_script(shlex.quote(path), "cat", secrets.token_hex(4))
        done = self._execute(script, source_of(data), timeout, transfer=True)
        done.expect_done(f"writing {path}", self._site.domain)

    def get(self, path: str, sink: Sink, *, timeout: float) -> None:
        __tracebackhide__ = True
        done = self._execute(f"cat -- {shlex.quote(path)}", None, timeout, out=sink, transfer=True)
        if not done.cut_off:
            done.expect_done(f"reading {path}", self._site.domain)
