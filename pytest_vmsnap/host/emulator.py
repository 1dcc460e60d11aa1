"""QEMU's programs: where they are, their versions, and an emulator that is started to be asked."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import HostError, NoHypervisor
from pytest_vmsnap.host.libvirt import INSTALL
from pytest_vmsnap.host.processes import limited

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

    from pytest_vmsnap.host.abilities import Ask

LIBVIRT_FLOOR = (9, 0)
QEMU_FLOOR = (7, 2)
EMULATOR = "qemu-system-x86_64"
QEMU_IMG = "qemu-img"
ANSWER_SECONDS = 20.0  # a busy host; it takes a tenth of a second


def of_libvirt(capabilities: Element) -> Path:
    """The emulator of libvirt's ``<domainCapabilities>``; raises `NoHypervisor` where it has none."""
    found = Path(capabilities.findtext("path") or "")
    if not found.is_file():
        raise NoHypervisor("libvirt knows no QEMU for x86_64 on this host", hint=INSTALL)
    return found


def installed(program: str) -> Path:
    """The path of `program`; raises `NoHypervisor` where it is not in the path."""
    found = shutil.which(program)
    if not found:
        raise NoHypervisor(f"{program} is not installed", hint=INSTALL)
    return Path(found)


def version_of(program: Path) -> str:
    """As `program`, of QEMU or libvirt, says it, e.g. ``10.0.2``; raises `NoHypervisor` where it does not run.

    libvirt's answer for QEMU took 2 s where KVM opens and does not work (9.0).
    """
    try:
        done = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, check=False, timeout=ANSWER_SECONDS
        )
    except OSError as error:
        raise NoHypervisor(f"{program} cannot be started: {error.strerror}", hint=INSTALL) from error
    except subprocess.TimeoutExpired as error:
        raise NoHypervisor(f"{program} --version does not end", hint=INSTALL) from error
    if found := re.search(r"(\d+\.\d+\.\d+)", done.stdout):
        return found[1]
    raise NoHypervisor(f"{program} does not run: {done.stderr.strip()}", hint=INSTALL)


def numbers(version: str) -> tuple[int, ...]:
    """A version's first two numbers, to compare."""
    return tuple(int(part) for part in version.split(".")[:2])


def expect_version(name: str, found: str, floor: tuple[int, int]) -> None:
    """Raise `HostError` where `name` is older than `floor`."""
    if numbers(found) < floor:
        needed = ".".join(str(part) for part in floor)
        raise HostError(f"{name} {found} is too old: {needed} or later is needed", hint=INSTALL)


@contextmanager
def questioned(emulator: Path, *, timeout: float = ANSWER_SECONDS) -> Iterator[Ask]:
    """A way to ask `emulator`, which is started without a machine, and killed at the end or after `timeout` s.

    QEMU, "QEMU Machine Protocol Specification". Raises `HostError` where it does not start or answer.
    """
    command = [str(emulator), "-machine", "none", "-nodefaults", "-no-user-config", "-display", "none"]
    try:
        process = subprocess.Popen(
            [*command, "-S", "-qmp", "stdio"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise HostError(f"{emulator} cannot be started: {error.strerror}", hint=INSTALL) from error
    with process, limited(process, timeout) as ran_out:
        monitor = _Monitor(process)
        try:
            monitor.greeted()
            monitor.ask("qmp_capabilities")
            yield monitor.ask
        except (EOFError, OSError, ValueError) as error:
            process.kill()
            said = "".join(process.stderr or ()).strip() or str(error) or "it has ended"
            words = f"no answer within {timeout:g} s" if ran_out.is_set() else said
            raise HostError(f"{emulator} does not answer: {words}", hint=INSTALL) from error


class _Monitor:
    """QEMU's monitor, a line of JSON for each message."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def greeted(self) -> None:
        """Read the greeting."""
        if "QMP" not in self._message():
            raise ValueError("it greets in another protocol")

    def ask(self, command: str) -> Any:
        """The answer to `command`; raises `HostError` with QEMU's words."""
        print(json.dumps({"execute": command}), file=self._process.stdin, flush=True)
        while True:
            message = self._message()
            if "error" in message:
                raise HostError(f"QEMU refused {command}: {message['error'].get('desc', message['error'])}")
            if "return" in message:  # else an event
                return message["return"]

    def _message(self) -> dict[str, Any]:
        for line in self._process.stdout or ():
            found: dict[str, Any] = json.loads(line)
            return found
        raise EOFError
