"""Installing through the serial console: with a login, or in a shell that already runs there."""

from __future__ import annotations

import re
import shlex
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ChannelError, GuestGone
from pytest_vmsnap.guest.boot_failure import END_CHARACTERS, standstill
from pytest_vmsnap.guest.bootstrap.method import LoginRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap.host import Domain

HELLO_SECONDS = 5.0  # for what may be a prompt to answer
ANSWER_SECONDS = 20.0  # login(1) may take a while to check a password
QUIET_SECONDS = 0.7  # without output: what came last is a prompt
LONGEST_READ_SECONDS = 2.0
LOGIN = re.compile(rb"login: *\Z")
PASSWORD = re.compile(rb"[Pp]assword: *\Z")
REFUSED = re.compile(rb"[Ll]ogin incorrect|Authentication failure|Login timed out")
# a number before % is how far something is, such as the relabelling of a file system
PROMPT = re.compile(rb"(?:[#$>]|(?<!\d)%) *(\x1b\[[0-9;?]*[a-zA-Z])*\Z")
# of a boot loader, which draws on the whole screen: what ends a piece of that is no prompt
BOOT_MENU = re.compile(rb"GNU GRUB|highlighted entry|[Pp]ress enter to boot|[Bb]oot [Mm]anager")
# what is typed is echoed, so the expected answer must differ from it
HELLO, HELLO_ANSWER = b"echo vmsnap-$((40+2))\n", b"vmsnap-42"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleLogin:
    """Who logs in on the serial console; without a `user`, only a shell that already runs there is used."""

    user: str | None = None
    password: str = field(default="", repr=False)


class ViaConsole:
    """The serial console of the current domain."""

    name = "serial console"

    def __init__(self, domain: Callable[[], Domain], login: ConsoleLogin) -> None:
        self._domain = domain
        self._login = login
        self._socket: socket.socket | None = None
        self._seen = b""
        self._problem = "it printed nothing"
        self._logged_in = False

    def is_ready(self) -> bool:
        """Whether there is a prompt: that of login(1) if a user is given, or that of a shell.

        Nothing is typed where a boot has come to a dead end: a firmware or an initramfs has a shell too.
        Without a prompt, the console is left again: a guest stops at its output if a connected reader does not
        read (measured: after some hundred bytes, since each write takes up a whole buffer of the socket).
        """
        is_ready = not self._is_stuck() and self._has_prompt()
        if not is_ready:
            self.close()
        return is_ready

    def _has_prompt(self) -> bool:
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.connect(str(self._domain().serial))
            self._send(b"\n")
            self._read(QUIET_SECONDS)
        except OSError as error:
            self._problem = f"it cannot be reached: {error}"
            return False
        if self._is_stuck():
            return False
        if BOOT_MENU.search(self._seen):
            self._problem = "it shows the menu of a boot loader"
            return False
        if LOGIN.search(self._seen):
            self._problem = "it asks for a login: set vmsnap_console_user and vmsnap_console_password"
            return self._login.user is not None
        self._problem = "it shows no prompt; its last line: " + repr(
            self._seen.rstrip().rpartition(b"\n")[2].decode(errors="replace")
        )
        if not PROMPT.search(self._seen):
            return False
        try:
            self._ask(HELLO, HELLO_ANSWER, HELLO_SECONDS, "what looks like a prompt is none")
        except ChannelError as error:
            self._problem = error.message
        except OSError as error:
            self._problem = f"it cannot be reached: {error}"
        else:
            return True
        return False

    def run_as_root(self, script: str, *, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        try:
            if LOGIN.search(self._seen):
                self._log_in()
                self._ask(HELLO, HELLO_ANSWER, ANSWER_SECONDS, "no shell answers")
            self._run(script, max(ANSWER_SECONDS, deadline - time.monotonic()))
            if self._logged_in:
                self._send(b"exit\n")
        except OSError as error:
            raise GuestGone(f"QEMU has closed the serial console: {error}") from error

    def problem(self) -> str:
        return self._problem

    def close(self) -> None:
        """Disconnect: the guest would block on its output if a connected reader did not read."""
        if self._socket:
            self._socket.close()
        self._socket, self._seen, self._logged_in = None, b"", False

    def _is_stuck(self) -> bool:
        if stuck := standstill(self._domain().console_end(END_CHARACTERS)):
            self._problem = stuck.where
        return stuck is not None

    def _log_in(self) -> None:
        assert self._login.user is not None  # noqa: S101 - is_ready
        self._seen = b""
        self._send(self._login.user.encode() + b"\n")
        deadline = time.monotonic() + ANSWER_SECONDS
        while not PROMPT.search(self._seen):
            if PASSWORD.search(self._seen):
                self._seen = b""
                self._send(self._login.password.encode() + b"\n")
            if REFUSED.search(self._seen) or LOGIN.search(self._seen):
                raise LoginRefused(
                    f"the login as {self._login.user} was refused:"
                    " check vmsnap_console_user and vmsnap_console_password"
                )
            if time.monotonic() > deadline:
                raise ChannelError(f"no prompt came after the login as {self._login.user}: {self._tail()!r}")
            self._read(QUIET_SECONDS)
        self._logged_in = True

    def _run(self, script: str, seconds: float) -> None:
        """Run `script` as root: it is typed into a variable, since there may be no place for a file."""
        end = b"vmsnap-end-of-script"
        # sed(1) would do, but busybox's waits for the line after the last one
        take = (
            "stty -echo; echo vmsnap-$((50+1)); v=; "
            f'while IFS= read -r line && [ "$line" != {end.decode()} ]; do v="$v$line$n"; done; stty echo; '
        )
        root = 'if [ "$(id -u)" = 0 ]; then sh -c "$v"; else sudo -n sh -c "$v"; fi'
        line = f"n='\n' sh -c {shlex.quote(take + root)}; echo vmsnap-done-$?-$((60+1))\n"
        self._ask(line.encode(), b"vmsnap-51", ANSWER_SECONDS, "the shell did not start to read the script")
        self._seen = b""
        self._send(script.encode() + b"\n" + end + b"\n")
        found = self._wait(re.compile(rb"vmsnap-done-(\d+)-61"), seconds, "the script did not end")
        if status := int(found[1]):
            raise ChannelError(f"exit status {status}: {self._tail()}")

    def _ask(self, line: bytes, answer: bytes, seconds: float, words: str) -> None:
        self._seen = b""
        self._send(line)
        self._wait(re.compile(re.escape(answer)), seconds, words)

    def _wait(self, pattern: re.Pattern[bytes], seconds: float, words: str) -> re.Match[bytes]:
        deadline = time.monotonic() + seconds
        while not (found := pattern.search(self._seen)):
            if time.monotonic() > deadline:
                raise ChannelError(f"{words}: {self._tail()!r}")
            self._read(0.1)
        return found

    def _tail(self) -> str:
        return self._seen[-300:].decode(errors="replace").strip()

    def _send(self, data: bytes) -> None:
        assert self._socket  # noqa: S101 - is_ready
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.sendall(data)

    def _read(self, quiet: float) -> None:
        """Read until nothing comes for `quiet` seconds; a guest may print without a pause."""
        assert self._socket  # noqa: S101 - is_ready
        self._socket.settimeout(quiet)
        deadline = time.monotonic() + LONGEST_READ_SECONDS
        try:
            while piece := self._socket.recv(1 << 16):
                self._seen = (self._seen + piece)[-(1 << 16) :]
                if time.monotonic() > deadline:
                    return
        except TimeoutError:
            return
        raise GuestGone("QEMU has closed the serial console")
