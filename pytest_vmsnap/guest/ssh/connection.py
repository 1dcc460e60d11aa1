"""The SSH connection to a machine, and the commands on it (RFC 4254)."""

from __future__ import annotations

import logging
import secrets
import select
import shlex
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import ChannelError, GuestHung, SpecError
from pytest_vmsnap.guest.channel import Completed, expect_alive
from pytest_vmsnap.guest.ssh.login import paramiko
from pytest_vmsnap.guest.ssh.pending_connections import PendingConnections
from pytest_vmsnap.guest.streams import Captured, MarkedStream
from pytest_vmsnap.host import add_forward, forwards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vmsnap.guest.channel import Target
    from pytest_vmsnap.guest.ssh.login import SshLogin
    from pytest_vmsnap.guest.streams import Sink, Source
    from pytest_vmsnap.guest.terminal import Terminal
    from pytest_vmsnap.host import Domain

log = logging.getLogger("pytest_vmsnap.ssh")

SSH_PORT = 22
CONNECT_SECONDS = 10.0  # for each part of the handshake: an emulated processor is slow at it
LOOK_SECONDS = 1.0
KEEPALIVE_SECONDS = 5  # a kernel that kexec(8) started resets a connection that is not its own
PIECE = 1 << 16
SESSIONS = 8  # for commands at once: sshd_config(5) allows ten by default (MaxSessions), and some are ours
KILLED = 128 + 9

# $1: the command, $2: the mark. sshd gives the shell its own session, so its group has all that it starts. A
# mark on both streams shows the command's end: sshd may report a status before the last output, and a process
# that the command left behind keeps the streams open.
RUNNER = """echo "$$"; (eval "$1"); status=$?; echo "$2" >&2; echo "$2 $status"; exit "$status" """


class SshConnection:
    """An SSH connection to the machine at `target`, made when it is needed, and again after a new boot."""

    def __init__(self, target: Target, login: SshLogin, *, scaled: Callable[[float], float] = float) -> None:
        self._site = target
        self._scaled = scaled
        self._login = login
        self._transport: Any = None
        self._boot: tuple[Domain, int] | None = None
        self._pending = PendingConnections()
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(SESSIONS)

    def endpoint(self) -> tuple[str, int]:
        """Return the address and port on the host, and forward the port if it is not forwarded yet.

        Raises `SpecError` if the machine has no network.
        """
        target = self._site
        if not target.netdev:
            raise SpecError("this machine has no network (network=none)", hint="use vmsnap_network=user")
        for found in forwards(target.domain, target.address):
            if (found.protocol, found.guest_port) == ("tcp", SSH_PORT):
                return target.address, found.host_port
        made = add_forward(target.domain, netdev=target.netdev, address=target.address, guest_port=SSH_PORT)
        return target.address, made.host_port

    def is_alive(self) -> bool:
        """Whether there is a connection to the current boot.

        A guest that is reset closes no connection, and one that only waits never notices.
        """
        return bool(self._transport and self._transport.is_active() and self._boot == self._boot_now())

    def _boot_now(self) -> tuple[Domain, int]:
        domain = self._site.domain
        return domain, domain.events.reboots

    def connect(self, deadline: float) -> None:
        """Connect, if there is no connection; drop an old one at once.

        Raises `ChannelError` if the guest refuses, or does not answer by the `deadline` (monotonic clock).
        """
        with self._lock:
            if self.is_alive():
                return
            self._drop()
            library = paramiko()
            boot, key = self._boot_now(), self._login.key()
            transport = None
            try:
                plug = self._pending.answered(self.endpoint(), deadline)
                transport = library.Transport(plug)
                transport.banner_timeout = transport.handshake_timeout = self._scaled(CONNECT_SECONDS)
                transport.auth_timeout = self._scaled(CONNECT_SECONDS)
                transport.start_client(timeout=self._scaled(CONNECT_SECONDS))
                transport.auth_publickey(self._login.user, key)
            except (OSError, EOFError, library.SSHException) as error:
                if transport:
                    transport.close()
                raise ChannelError(f"SSH: {str(error) or type(error).__name__}") from error
            transport.set_keepalive(KEEPALIVE_SECONDS)
            self._transport, self._boot = transport, boot

    def ping(self, timeout: float) -> bool:
        """Return whether sshd answers a keep-alive request within `timeout` seconds."""
        done = threading.Event()

        def ask() -> None:
            self._transport.global_request("keepalive@openssh.com", wait=True)
            done.set()

        threading.Thread(target=ask, name="vmsnap-ssh-ping", daemon=True).start()
        return done.wait(timeout) and self.is_alive()

    def close(self) -> None:
        """Drop the connection without sending anything, since the guest may be gone."""
        self._drop()
        self._pending.close()

    def _drop(self) -> None:
        transport, self._transport = self._transport, None
        if transport:
            transport.close()

    def execute(
        self,
        script: str,
        source: Source | None,
        *,
        timeout: float,
        out: Sink | None = None,
        err: Sink | None = None,
        transfer: bool = False,
    ) -> Completed:
        """Run a script as root to its end; kill its process group if it runs longer than `timeout` seconds.

        It is also killed if a sink takes no more. The timeout of a `transfer` restarts whenever bytes move.
        Waits for its turn if many run. Raises what the source of its input raises.
        """
        with self._turns:
            return self._executed(script, source, timeout, out or Captured(), err or Captured(), transfer)

    def _executed(
        self, script: str, source: Source | None, timeout: float, out: Sink, err: Sink, transfer: bool
    ) -> Completed:
        def look() -> None:
            expect_alive(self._site.domain)
            if boot != self._boot_now():
                raise GuestHung("the guest rebooted meanwhile", console=self._site.domain.console_text())
            if feeder.failure:
                self._end(streams)
                raise feeder.failure

        boot = self._boot_now()
        began = time.monotonic()
        mark = f"#{secrets.token_hex(8)}"
        session = self._session(shlex.join(["sh", "-c", RUNNER, "sh", script, mark]))
        feeder = _Feeder(session, source)
        feeder.start()
        streams = _Streams(session, mark.encode(), out, err)
        deadline = _Deadline(timeout, (streams, feeder) if transfer else ())
        try:
            ended = streams.finish(deadline.is_over, look)
            if not ended:
                self._end(streams)
            if feeder.failure:
                raise feeder.failure
        finally:
            session.close()
        cut_off = out.is_closed or err.is_closed
        return Completed(
            status=streams.status() if ended else KILLED,
            stdout=out.content() if isinstance(out, Captured) else b"",
            stderr=err.content() if isinstance(err, Captured) else b"",
            timed_out=not ended and not cut_off,
            cut_off=cut_off,
            began=began,
        )

    def _end(self, streams: _Streams) -> None:
        """Kill what runs in a session, and wait until it has ended."""
        if streams.pid:
            self._kill(streams.pid)
            deadline = time.monotonic() + self._scaled(CONNECT_SECONDS)
            streams.finish(lambda: time.monotonic() > deadline, lambda: None)

    def interact(self, terminal: Terminal) -> None:
        """Run a login shell at the terminal, until it ends."""
        session = self._transport.open_session(timeout=self._scaled(CONNECT_SECONDS))
        try:
            with answered_within(self._scaled(CONNECT_SECONDS), self._transport):
                session.get_pty(term=terminal.kind, width=terminal.columns, height=terminal.rows)
                session.invoke_shell()
            while not (session.closed or session.eof_received) or session.recv_ready():
                ready, _, _ = select.select([session, terminal.source], [], [], LOOK_SECONDS)
                if terminal.source in ready:
                    session.sendall(terminal.typed())
                if session.recv_ready():
                    terminal.show(session.recv(PIECE))
        finally:
            session.close()

    def _kill(self, pid: int) -> None:
        session = self._session(f"kill -KILL -{pid}")
        try:
            session.settimeout(self._scaled(CONNECT_SECONDS))
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
            seconds = self._scaled(CONNECT_SECONDS)
            session = self._transport.open_session(timeout=seconds)
            with answered_within(seconds, self._transport):
                session.exec_command(command)
        except (OSError, EOFError, AttributeError, library.SSHException) as error:
            expect_alive(self._site.domain)
            if isinstance(error, library.ChannelException):  # sshd refuses, e.g. because of MaxSessions
                raise ChannelError(f"SSH: {error}") from error
            self.close()
            console = self._site.domain.console_text()
            raise GuestHung(f"the guest does not answer: {error}", console=console) from error
        return session


@contextmanager
def answered_within(seconds: float, transport: Any) -> Iterator[None]:
    """Close the connection if the block takes longer than `seconds`: paramiko waits for some answers forever.

    The wait then ends with paramiko's error. A guest that is reset in between never answers.
    """
    timer = threading.Timer(seconds, transport.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Feeder(threading.Thread):
    """Sends a session its input; `failure` is what its source raised, `moved_at` when bytes last moved."""

    def __init__(self, session: Any, source: Source | None) -> None:
        super().__init__(name="vmsnap-ssh-input", daemon=True)
        self._session, self._source = session, source
        self.moved_at = time.monotonic()
        self.failure: Exception | None = None

    def run(self) -> None:
        pieces = self._source.open() if self._source else iter(())
        while True:
            try:
                piece = next(pieces, None)
            except Exception as error:  # noqa: BLE001 - raised in the thread that waits for the command
                self.failure = error
                return
            try:
                if piece is None:
                    self._session.shutdown_write()
                    return
                self._session.sendall(piece)
                self.moved_at = time.monotonic()
            except OSError:  # the command did not read all of it
                log.debug("the command ended before its input did")
                return


class _Deadline:
    """Is over `timeout` seconds after it was made, or after bytes last moved in one of `moving`."""

    def __init__(self, timeout: float, moving: tuple[_Streams | _Feeder, ...]) -> None:
        self._timeout = timeout
        self._began = time.monotonic()
        self._moving = moving

    def is_over(self) -> bool:
        moved_at = max([self._began, *(each.moved_at for each in self._moving)])
        return time.monotonic() >= moved_at + self._timeout


class _Streams:
    """What a session prints up to its marks: a line with its shell's process id, then the command's output."""

    def __init__(self, session: Any, mark: bytes, out: Sink, err: Sink) -> None:
        self._session = session
        self._out, self._err = MarkedStream(mark, out), MarkedStream(mark, err)
        self._first_line = bytearray()
        self._over = False
        self.pid = 0  # until the session has printed it
        self.moved_at = time.monotonic()

    def finish(self, is_over: Callable[[], bool], look: Callable[[], None]) -> bool:
        """Read until both marks have come or the session has ended; false if time is up or a sink closes."""
        stopped = self._is_stopped
        next_look = time.monotonic() + LOOK_SECONDS
        while not self._is_whole():
            if is_over() or (self._is_stopped and not stopped):
                return False
            select.select([self._session], [], [], LOOK_SECONDS / 4)
            self._read()
            if (now := time.monotonic()) >= next_look:
                look()
                next_look = now + LOOK_SECONDS
        return True

    @property
    def _is_stopped(self) -> bool:
        return self._out.sink.is_closed or self._err.sink.is_closed

    def _read(self) -> None:
        session = self._session
        closed = session.closed or session.eof_received  # checked before reading, so that all that came is read
        if session.recv_ready():
            self._take(session.recv(PIECE))
        if session.recv_stderr_ready():
            self._err.feed(session.recv_stderr(PIECE))
            self.moved_at = time.monotonic()
        if closed and not (session.recv_ready() or session.recv_stderr_ready()):
            self._over = True
            for stream in (self._out, self._err):
                if not stream.is_ended:
                    stream.flush()

    def _take(self, piece: bytes) -> None:
        self.moved_at = time.monotonic()
        if self.pid:
            self._out.feed(piece)
            return
        line, newline, rest = (self._first_line + piece).partition(b"\n")
        if newline and line.strip().isdigit():
            self.pid = int(line)
            self._out.feed(bytes(rest))
        else:
            self._first_line = (self._first_line + piece)[:PIECE]

    def _is_whole(self) -> bool:
        marked = self._out.is_ended and self._err.is_ended and b"\n" in self._out.behind
        return marked or self._over

    def status(self) -> int:
        """Return the command's status, or what sshd reports if the session's shell was killed."""
        if self._out.is_ended:
            return int(self._out.behind.split()[0])
        status = int(self._session.recv_exit_status())
        return KILLED if status < 0 else status
