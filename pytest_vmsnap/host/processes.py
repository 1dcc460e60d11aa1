"""QEMU and swtpm processes of this plugin: find them by domain name, kill them by pidfd, limit their time."""

from __future__ import annotations

import os
import resource
import select
import signal
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

PROC = Path("/proc")


def _arguments(pid: int) -> list[bytes]:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is hidden from us
        return []


def _guest_name(pid: int) -> str | None:
    """The domain that a QEMU process runs: libvirt starts it with ``-name guest=NAME,...``."""
    arguments = _arguments(pid)
    if not arguments or not Path(os.fsdecode(arguments[0])).name.startswith("qemu"):
        return None
    for argument in arguments:
        if argument.startswith(b"guest="):
            return os.fsdecode(argument[len(b"guest=") :].split(b",")[0])
    return None


def _machine_name(pid: int) -> str | None:
    """The domain that a QEMU or a swtpm process belongs to: our swtpm's state is in a machine's directory."""
    if name := _guest_name(pid):
        return name
    arguments = _arguments(pid)
    if arguments and Path(os.fsdecode(arguments[0])).name == "swtpm":
        for argument in arguments:
            if argument.startswith(b"dir="):
                return Path(os.fsdecode(argument[len(b"dir=") :])).parent.name
    return None


def qemus() -> Iterator[tuple[int, str]]:
    """Yield the process id and the domain name of every visible QEMU that libvirt started."""
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (name := _guest_name(int(entry.name))):
            yield int(entry.name), name


def is_stopped(pid: int) -> bool:
    """Whether a signal stopped the process (proc(5), state ``T``)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False


def qemu_of(name: str) -> int | None:
    """The process id of the QEMU that runs the domain `name`, or None."""
    return next((pid for pid, guest in qemus() if guest == name), None)


def end_qemus(prefix: str) -> list[int]:
    """Kill every QEMU, and every swtpm, of domains whose name begins with `prefix`; return their process ids.

    A descriptor (pidfd_open(2)) pins the process, and its name is checked again before the signal, so that
    the signal never hits another process that reuses the id.
    """
    ended = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or not (name := _machine_name(pid := int(entry.name))):
            continue
        if not name.startswith(prefix):
            continue
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if _machine_name(pid) == name:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                select.select([descriptor], [], [], 5.0)  # readable once it has ended
                ended.append(pid)
        except (ProcessLookupError, PermissionError):
            continue
        finally:
            os.close(descriptor)
    return ended


@contextmanager
def limited(process: subprocess.Popen[str], timeout: float) -> Iterator[threading.Event]:
    """Kill the process after `timeout` seconds, which sets the yielded event, or at the end of the block."""
    ran_out = threading.Event()

    def end() -> None:
        ran_out.set()
        process.kill()

    with suppress(OSError):  # it has ended
        resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))  # no core file if QEMU asserts
        seconds = int(timeout) + 10  # ends a spinning guest even if this process is killed
        resource.prlimit(process.pid, resource.RLIMIT_CPU, (seconds, seconds))
    timer = threading.Timer(timeout, end)
    timer.name, timer.daemon = "vmsnap-probe", True
    timer.start()
    try:
        yield ran_out
    finally:
        timer.cancel()
        process.kill()
