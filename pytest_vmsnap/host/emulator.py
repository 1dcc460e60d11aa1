"""QEMU's programs: their paths, their versions, and a way to query an emulator over QMP."""

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

    from pytest_vmsnap.host.qemu_capabilities import Ask

LIBVIRT_FLOOR = (9, 0)
QEMU_FLOOR = (7, 2)
EMULATOR = "qemu-system-x86_64"
QEMU_IMG = "qemu-img"
ANSWER_SECONDS = 20.0  # for a busy host; it usually takes 0.1 s


def emulator_of(capabilities: Element) -> Path:
    """The emulator in libvirt's ``<domainCapabilities>``; raises `NoHypervisor` if there is none."""
    found = Path(capabilities.findtext("path") or "")
    if not found.is_file():
        raise NoHypervisor("libvirt finds no QEMU for x86_64 on this host", hint=INSTALL)
    return found


def installed(program: str) -> Path:
    """The path of `program`; raises `NoHypervisor` if it is not on PATH."""
    found = shutil.which(program)
    if not found:
        raise NoHypervisor(f"{program} is not installed", hint=INSTALL)
    return Path(found)


def version_of(program: Path) -> str:
    """The version that `program`, of QEMU or libvirt, prints, e.g. ``10.0.2``.

    Asking libvirt for QEMU's version took 2 s on a host where KVM opens but does not work (libvirt 9.0).
    Raises `NoHypervisor` if the program does not run.
    """
    try:
        done = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, check=False, timeout=ANSWER_SECONDS
        )
    except OSError as error:
        raise NoHypervisor(f"{program} cannot be started: {error.strerror}", hint=INSTALL) from error
    except subprocess.TimeoutExpired as error:
        raise NoHypervisor(f"{program} --version does not finish", hint=INSTALL) from error
    if found := re.search(r"(\d+\.\d+\.\d+)", done.stdout):
        return found[1]
    raise NoHypervisor(f"{program} --version shows no version: {done.stderr.strip()}", hint=INSTALL)


def numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version, for comparison."""
    return tuple(int(part) for part in version.split(".")[:2])


def expect_version(name: str, found: str, floor: tuple[int, int]) -> None:
    """Raise `HostError` if the version `found` of `name` is older than `floor`."""
    if numbers(found) < floor:
        needed = ".".join(str(part) for part in floor)
        raise HostError(f"{name} {found} is too old: {needed} or later is needed", hint=INSTALL)


@contextmanager
def qmp_session(emulator: Path, *, timeout: float = ANSWER_SECONDS) -> Iterator[Ask]:
    """Start `emulator` without a machine, and yield a function that sends it QMP commands.

    The emulator is killed at the end of the block or after `timeout` seconds. See QEMU, "QEMU Machine Protocol
    Specification". Raises `HostError` if it does not start or answer.
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
            monitor.read_greeting()
            monitor.ask("qmp_capabilities")
            yield monitor.ask
        except (EOFError, OSError, ValueError) as error:
            process.kill()
            said = "".join(process.stderr or ()).strip() or str(error) or "it ended without an answer"
            words = f"no answer within {timeout:g} s" if ran_out.is_set() else said
            raise HostError(f"{emulator} does not answer: {words}", hint=INSTALL) from error


class _Monitor:
    """QEMU's monitor: each message is one line of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read_greeting(self) -> None:
        """Read QEMU's greeting; raises `ValueError` if it is not QMP."""
        if "QMP" not in self._message():
            raise ValueError("its greeting is not QMP")

    def ask(self, command: str) -> Any:
        """Return the answer to `command`; raises `HostError` with QEMU's message if QEMU refuses it."""
        print(json.dumps({"execute": command}), file=self._process.stdin, flush=True)
        while True:
            message = self._message()
            if "error" in message:
                raise HostError(f"QEMU refused {command}: {message['error'].get('desc', message['error'])}")
            if "return" in message:  # anything else is an event
                return message["return"]

    def _message(self) -> dict[str, Any]:
        for line in self._process.stdout or ():
            found: dict[str, Any] = json.loads(line)
            return found
        raise EOFError
