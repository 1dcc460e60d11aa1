"""The collectors: each looks at one thing of a machine, has a deadline, and may fail without the others."""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.evidence.pieces import Piece
from pytest_vmsnap.guest import Request
from pytest_vmsnap.machine import screenshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_vmsnap.machine import Deed, Trail

    Collector = Callable[[Trail, float], bytes]

log = logging.getLogger("pytest_vmsnap.evidence")

# journalctl(1); where there is no journal, what the kernel still has. Its end is enough: a journal may have
# hundreds of megabytes.
JOURNAL_LINES = 5000
JOURNAL_BYTES = 4 << 20
JOURNAL = """\
if command -v journalctl >/dev/null
then journalctl --no-pager -o short-precise --since=@{since} --lines={lines}
else dmesg
fi | tail -c {size}
"""
LONGEST_NAME = 100  # characters, of 255 bytes that file systems allow
LONGEST_SHOWN = 160  # characters of a command
SLACK_SECONDS = 2.0  # that the guest's clock may be behind the host's


def console(trail: Trail, _seconds: float) -> bytes:
    """What the guest printed on its serial console during the test."""
    return trail.console().encode()


def commands(trail: Trail, _seconds: float) -> bytes:
    """What was run in it, with times and the ends of the output."""
    return "".join(f"{line}\n" for deed in trail.deeds for line in told(deed, lines=None)).encode()


def journal(trail: Trail, seconds: float) -> bytes:
    """The end of the guest's journal since the test began; its kernel's messages where there is none."""
    if trail.channel is None or trail.body is None or trail.body.domain.trouble():
        return b""
    since = max(0, int(trail.since - SLACK_SECONDS))
    script = JOURNAL.format(since=since, lines=JOURNAL_LINES, size=JOURNAL_BYTES)
    return trail.channel.run(Request(text=script), timeout=seconds).stdout


def log_of_qemu(trail: Trail, _seconds: float) -> bytes:
    """What QEMU itself printed."""
    return trail.body.log().encode() if trail.body else b""


def description(trail: Trail, _seconds: float) -> bytes:
    """libvirt's description of the running domain."""
    if trail.body is None or trail.body.domain.condition() == "stopped":
        return b""
    return trail.body.domain.xml().encode()


def screen(trail: Trail, _seconds: float) -> bytes:
    """What its display shows, if it has one."""
    if trail.body is None or not trail.body.has_screen or trail.body.domain.condition() == "stopped":
        return b""
    with tempfile.TemporaryDirectory(prefix="vmsnap-") as name:
        return screenshot(trail.body, Path(name) / "screen.png").read_bytes()


COLLECTORS: dict[str, Collector] = {
    "console.txt": console,
    "commands.txt": commands,
    "journal.txt": journal,
    "qemu.log": log_of_qemu,
    "domain.xml": description,
    "screen.png": screen,
}


def collect(trails: Iterable[Trail], *, seconds: float) -> tuple[list[Piece], list[str]]:
    """What the machines can say, and why one could not: within `seconds`, however many there are.

    A collector that takes longer is left to itself: it ends with its machine.
    """
    deadline = time.monotonic() + seconds
    tasks = [_Task(trail, name, seconds) for trail in trails for name in COLLECTORS]
    for task in tasks:
        task.join(max(0.0, deadline - time.monotonic()))
    return [piece for task in tasks if (piece := task.piece)], [task.trouble for task in tasks if task.trouble]


class _Task(threading.Thread):
    """One collector at one machine."""

    def __init__(self, trail: Trail, name: str, seconds: float) -> None:
        super().__init__(name=f"vmsnap-evidence-{name}", daemon=True)
        self._trail, self._file, self._seconds = trail, name, seconds
        self._data = b""
        self._trouble = ""
        self._title = f"{name} of {trail.label}"
        self.start()

    def run(self) -> None:
        try:
            self._data = COLLECTORS[self._file](self._trail, self._seconds)
        except Exception as error:
            self._trouble = str(error).splitlines()[0] if str(error) else type(error).__name__
            log.info("%s", self._title, exc_info=error)

    @property
    def piece(self) -> Piece | None:
        """What was found, if anything was."""
        if self.is_alive() or not self._data:
            return None
        return Piece(name=f"{_file_name(self._trail.label)}-{self._file}", title=self._title, data=self._data)

    @property
    def trouble(self) -> str:
        """Why there is nothing, if that is no good news."""
        if self.is_alive():
            return f"{self._title}: not there within {self._seconds:g} s"
        return f"{self._title}: {self._trouble}" if self._trouble else ""


def told(deed: Deed, *, lines: int | None) -> list[str]:
    """A command as a person reads it, with the last `lines` of each stream, None for all that is there."""
    clock = datetime.fromtimestamp(deed.began).astimezone().strftime("%H:%M:%S.%f")[:-3]
    often = f" ({deed.count} times)" if deed.count > 1 else ""
    command = deed.command if lines is None else _short(deed.command)
    shown = [f"{clock} {deed.seconds:8.3f} s  {deed.outcome}{often}  {command}"]
    for name, stream in (("stdout", deed.stdout), ("stderr", deed.stderr)):
        text = stream.decode(errors="replace").splitlines()
        shown += [f"    {name}: {line}" for line in (text if lines is None else text[-lines:])]
    return shown


def _file_name(label: str) -> str:
    """`label` as a file's name; where it cannot be one, with a mark that no other label has."""
    plain = label.replace(" ", "-")
    safe = re.sub(r"[^\w.=+-]+", "-", plain).lstrip(".-")[:LONGEST_NAME]
    return safe if safe == plain else f"{safe}-{hashlib.sha256(label.encode()).hexdigest()[:6]}"


def _short(command: str) -> str:
    line = " ".join(command.split())
    return line if len(line) <= LONGEST_SHOWN else f"{line[:LONGEST_SHOWN]}..."
