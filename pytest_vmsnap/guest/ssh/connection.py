"""The SSH connection to a machine, and the commands on it (RFC 4254)."""

from __future__ import annotations

import logging
import secrets
import select
import shlex
import threading
import time
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import ChannelError, GuestHung, SpecError
from pytest_vmsnap.guest.channel import Completed, expect_alive
from pytest_vmsnap.guest.ssh.knock import Knocks
from pytest_vmsnap.guest.ssh.login import paramiko
from pytest_vmsnap.host import add_forward, forwards

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap.guest.channel import Site
    from pytest_vmsnap.guest.ssh.login import SshLogin
    from pytest_vmsnap.guest.terminal import Terminal
    from pytest_vmsnap.host import Domain

log = logging.getLogger("pytest_vmsnap.ssh")

SSH_PORT = 22
CONNECT_SECONDS = 10.0  # for each part of the handshake: an emulated processor is slow at it
LOOK_SECONDS = 1.0
KEEPALIVE_SECONDS = 5  # a kernel that was started by kexec(8) resets a connection that is not its own
PIECE = 1 << 16
STATUS_BYTES = 4  # " 255" behind a mark
KILLED = 128 + 9

# $1: the command, $2: the mark. The shell is a session of its own (sshd), so its group is all that it starts.
# The command's end is told by a mark on both streams: sshd may report a status before the last of the output,
# and a process that the command left behind keeps the streams open.
RUNNER = """echo "$$"; (eval "$1"); status=$?; echo "$2" >&2; echo "$2 $status"; exit "$status" """


class SshConnection:
    """An SSH connection to the machine at `site`, made when it is wanted, and again after a new boot."""

    def __init__(self, site: Site, login: SshLogin) -> None:
        self._site = site
        self._login = login
        self._transport: Any = None
        self._boot: tuple[Domain, int] | None = None
        self._knocks = Knocks()
        self._lock = threading.Lock()

    def endpoint(self) -> tuple[str, int]:
        """Address and port on the host, forwarded now if they were not.

        Raises `SpecError` for a machine without a network.
        """
        site = self._site
        if not site.netdev:
            raise SpecError("this machine has no network (network=none)", hint="use vmsnap_network=user")
        for found in forwards(site.domain, site.address):
            if (found.protocol, found.guest_port) == ("tcp", SSH_PORT):
                return site.address, found.host_port
        made = add_forward(site.domain, netdev=site.netdev, address=site.address, guest_port=SSH_PORT)
        return site.address, made.host_port

    def is_alive(self) -> bool:
        """Whether there is a connection to the boot that is there now.

        A guest that is reset takes leave of nobody, and a connection that only waits never learns of it.
        """
        return bool(self._transport and self._transport.is_active() and self._boot == self._boot_now())

    def _boot_now(self) -> tuple[Domain, int]:
        domain = self._site.domain
        return domain, domain.events.reboots

    def connect(self, deadline: float) -> None:
        """Connect, if there is no connection; an old one is dropped at once.

        Raises `ChannelError` where the guest refuses, or does not answer by the `deadline` (monotonic clock).
        """
        with self._lock:
            if self.is_alive():
                return
            self._drop()
            library = paramiko()
            boot, key = self._boot_now(), self._login.key()
            transport = None
            try:
                plug = self._knocks.answered(self.endpoint(), deadline)
                transport = library.Transport(plug)
                transport.banner_timeout = transport.handshake_timeout = CONNECT_SECONDS
                transport.auth_timeout = CONNECT_SECONDS
                transport.start_client(timeout=CONNECT_SECONDS)
                transport.auth_publickey(self._login.user, key)
            except (OSError, EOFError, library.SSHException) as error:
                if transport:
                    transport.close()
                raise ChannelError(f"SSH: {str(error) or type(error).__name__}") from error
            transport.set_keepalive(KEEPALIVE_SECONDS)
            self._transport, self._boot = transport, boot

    def ping(self, timeout: float) -> bool:
        """Whether sshd answers within `timeout` seconds to a request that asks for nothing."""
        done = threading.Event()

        def ask() -> None:
            self._transport.global_request("keepalive@openssh.com", wait=True)
            done.set()

        threading.Thread(target=ask, name="vmsnap-ssh-ping", daemon=True).start()
        return done.wait(timeout) and self.is_alive()

    def close(self) -> None:
        """Drop the connection; nothing is sent, for nobody may be there."""
        self._drop()
        self._knocks.close()

    def _drop(self) -> None:
        transport, self._transport = self._transport, None
        if transport:
            transport.close()

    def execute(self, script: str, data: bytes, *, timeout: float) -> Completed:
        """Run a script as root to its end; one that runs over `timeout` seconds is killed with its group."""

        def look() -> None:
            expect_alive(self._site.domain)
            if boot != self._boot_now():
                raise GuestHung("the guest has rebooted meanwhile", console=self._site.domain.console_text())

        boot = self._boot_now()

        mark = f"#{secrets.token_hex(8)}"
        session = self._session(shlex.join(["sh", "-c", RUNNER, "sh", script, mark]))
        feeder = threading.Thread(target=_feed, args=(session, data), name="vmsnap-ssh-input", daemon=True)
        feeder.start()
        streams = _Streams(session, mark.encode())
        try:
            timed_out = not streams.finish(time.monotonic() + timeout, look)
            if timed_out and streams.pid:
                self._kill(streams.pid)
                streams.finish(time.monotonic() + CONNECT_SECONDS, look)
        finally:
            session.close()
        return Completed(
            status=KILLED if timed_out else streams.status(),
            stdout=streams.stdout(),
            stderr=streams.stderr(),
            timed_out=timed_out,
        )

    def interact(self, terminal: Terminal) -> None:
        """Run a login shell at the terminal, until it ends."""
        session = self._transport.open_session(timeout=CONNECT_SECONDS)
        session.get_pty(term=terminal.kind, width=terminal.columns, height=terminal.rows)
        session.invoke_shell()
        try:
            while not (session.closed or session.eof_received) or session.recv_ready():
                ready, _, _ = select.select([session, terminal.source], [], [], LOOK_SECONDS)
                if terminal.source in ready:
                    session.sendall(terminal.typed())
                if session.recv_ready():
                    terminal.show(session.recv(PIECE))
        finally:
            session.close()

    def _kill(self, pid: int) -> None:
        session = self._session(f"kill -s KILL -- -{pid}")
        try:
            session.settimeout(CONNECT_SECONDS)
            session.recv(1)
        except TimeoutError as error:
            raise GuestHung("the guest does not answer", console=self._site.domain.console_text()) from error
        finally:
            session.close()

    def _session(self, command: str) -> Any:
        library = paramiko()
        if self._login.user != "root":
            command = f"sudo -n {command}"
        try:
            session = self._transport.open_session(timeout=CONNECT_SECONDS)
            session.exec_command(command)
        except (OSError, EOFError, AttributeError, library.SSHException) as error:
            expect_alive(self._site.domain)
            if isinstance(error, library.ChannelException):  # sshd refuses, e.g. by its MaxSessions
                raise ChannelError(f"SSH: {error}") from error
            self.close()
            console = self._site.domain.console_text()
            raise GuestHung(f"the guest does not answer: {error}", console=console) from error
        return session


def _feed(session: Any, data: bytes) -> None:
    try:
        session.sendall(data)
        session.shutdown_write()
    except OSError:  # it did not want all of it
        log.debug("the command ended before its input did")


class _Streams:
    """What a session prints, up to its marks."""

    def __init__(self, session: Any, mark: bytes) -> None:
        self._session = session
        self._mark = mark
        self._out, self._err = bytearray(), bytearray()
        self._seen = [0, 0]
        self._ends = [-1, -1]
        self._over = False

    def finish(self, deadline: float, look: Callable[[], None]) -> bool:
        """Read until both marks have come, or the session has ended; false at the `deadline`."""
        while not self._is_whole():
            now = time.monotonic()
            if now >= deadline:
                return False
            if not select.select([self._session], [], [], min(LOOK_SECONDS, deadline - now))[0]:
                look()
            self._read()
        return True

    def _read(self) -> None:
        session = self._session
        closed = session.closed or session.eof_received  # before reading: what came until then is there
        while session.recv_ready():
            self._out += session.recv(PIECE)
        while session.recv_stderr_ready():
            self._err += session.recv_stderr(PIECE)
        self._over = closed

    def _is_whole(self) -> bool:
        for number, stream in enumerate((self._out, self._err)):
            if self._ends[number] < 0:
                self._ends[number] = stream.find(self._mark, max(0, self._seen[number] - len(self._mark)))
                self._seen[number] = len(stream)
        marked = min(self._ends) >= 0 and self._out.find(b"\n", self._ends[0]) >= 0
        return marked or self._over

    @property
    def pid(self) -> int:
        """The process id of the session's shell, 0 while it has not said it."""
        line, newline, _ = self._out.partition(b"\n")
        return int(line) if newline else 0

    def status(self) -> int:
        """The command's status; where something killed the session's shell, what sshd says of it."""
        if self._ends[0] >= 0:
            return int(self._out[self._ends[0] + len(self._mark) :].split()[0])
        status = int(self._session.recv_exit_status())
        return KILLED if status < 0 else status

    def stdout(self) -> bytes:
        _, _, rest = self._cut(self._out, self._ends[0]).partition(b"\n")
        return rest

    def stderr(self) -> bytes:
        return self._cut(self._err, self._ends[1])

    @staticmethod
    def _cut(stream: bytearray, end: int) -> bytes:
        return bytes(stream if end < 0 else stream[:end])
