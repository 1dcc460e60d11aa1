"""How long a machine takes to be ready, with and without what the recipe trims. Run by hand:

    python tests/bench/boot.py [--times 3] [--store DIR] [--accel tcg]

Builds both variants of ``debian:SUITE`` (or takes them from the store), boots them in turn with plain QEMU
on a throw-away overlay, and prints two times from the start of QEMU: until the guest agent answers
("ready"), and until systemd and udev have nothing left to do ("settled"); and the processor time that QEMU
took for the latter, which other load on the host changes less.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from pytest_vmsnap.image.debian import provide_debian
from pytest_vmsnap.progress import Progress
from pytest_vmsnap.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.model import Image

DEADLINE = 300.0


class Agent:
    """The guest agent at the socket `path` (QEMU, docs/interop/qemu-ga-ref)."""

    def __init__(self, path: Path) -> None:
        self._rest = b""
        self._socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self._socket.connect(str(path))
                return
            except ConnectionRefusedError:  # QEMU has bound it, and does not listen yet
                time.sleep(0.005)

    def close(self) -> None:
        self._socket.close()

    def ask(self, command: str, **arguments: Any) -> Any:
        """One command; raises `TimeoutError` after `DEADLINE`."""
        self._socket.settimeout(DEADLINE)
        self._send({"execute": command, "arguments": arguments})
        answer = json.loads(self._line())
        if "error" in answer:
            raise RuntimeError(f"{command}: {answer['error']}")
        return answer["return"]

    def wait(self) -> None:
        """Until it answers; what is sent before it listens waits in the port's queue."""
        self.ask("guest-ping")

    def run(self, command: str) -> str:
        """The stdout of a shell command."""
        pid = self.ask("guest-exec", path="/bin/sh", arg=["-c", command], **{"capture-output": True})["pid"]
        while not (status := self.ask("guest-exec-status", pid=pid))["exited"]:
            time.sleep(0.02)
        return base64.b64decode(status.get("out-data", "")).decode()

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            if not (more := self._socket.recv(1 << 16)):
                raise ConnectionError("QEMU has ended")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line


@contextmanager
def booted(image: Image, accel: str, *, cmdline: str | None = None) -> Iterator[tuple[Agent, float, int]]:
    """A machine on an overlay of `image`, its agent, and QEMU's start and process id."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vmsnap-bench-")))
        overlay, agent_socket, console = (directory / name for name in ("disk.qcow2", "agent", "console"))
        base = ["-F", image.format, "-b", str(image.disk)]
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *base, str(overlay)], check=True)
        start = time.monotonic()
        qemu = subprocess.Popen(_command(image, accel, cmdline, overlay, agent_socket, console))
        stack.callback(qemu.wait)
        stack.callback(qemu.kill)
        while not agent_socket.exists():
            if qemu.poll() is not None:
                raise RuntimeError("QEMU did not start")
            time.sleep(0.005)
        agent = Agent(agent_socket)
        stack.callback(agent.close)
        yield agent, start, qemu.pid


def _command(
    image: Image, accel: str, cmdline: str | None, overlay: Path, agent: Path, console: Path
) -> list[str]:
    return [
        *("qemu-system-x86_64", "-accel", accel, "-cpu", "max", "-smp", "2", "-m", "512"),
        *("-nodefaults", "-display", "none", "-serial", f"file:{console}"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
        *("-append", cmdline or image.cmdline or ""),
        *("-drive", f"file={overlay},if=virtio,cache=unsafe"),
        *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci", "-device", "virtio-serial"),
        *("-chardev", f"socket,id=agent,path={agent},server=on,wait=off"),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
    ]


def measure(image: Image, accel: str) -> dict[str, float]:
    """Seconds until the agent answers, until the system has settled, and of processor time until then."""
    with booted(image, accel) as (agent, start, pid):
        agent.wait()
        ready = time.monotonic() - start
        state = agent.run("systemctl is-system-running --wait; udevadm settle").strip()
        settled = time.monotonic() - start
        if state != "running":
            failed = agent.run("systemctl --failed --plain --no-legend")
            raise RuntimeError(f"{image.origin}: the system is {state}:\n{failed}")
        return {"ready": ready, "settled": settled, "processor": _processor_time(pid)}


def _processor_time(pid: int) -> float:
    """Seconds in user and kernel mode (proc(5), /proc/PID/stat: fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def describe(name: str, seconds: list[float]) -> str:
    """Median and spread in a line."""
    middle = statistics.median(seconds)
    return (
        f"{name:<22} median {middle:6.2f} s   from {min(seconds):.2f} to {max(seconds):.2f}, n={len(seconds)}"
    )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="trixie")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--accel", default="tcg")
    parser.add_argument("--store", type=Path, default=platformdirs.user_cache_path("pytest-vmsnap"))
    options = parser.parse_args()
    progress = Progress(lambda line: print(line, file=sys.stderr))  # noqa: T201
    store = Store(options.store, progress=progress)
    images = {
        name: provide_debian(
            f"debian:{options.suite}", options.suite, (), store=store, progress=progress, trim=trim
        )
        for name, trim in (("stock", False), ("trimmed", True))
    }
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in images}
    for turn in range(options.times):
        for name, image in images.items():
            figures = measure(image, options.accel)
            taken[name].append(figures)
            words = ", ".join(f"{what} {seconds:.2f} s" for what, seconds in figures.items())
            progress.say(f"turn {turn + 1}, {name}: {words}")
    report(options, images, taken)


def report(
    options: argparse.Namespace, images: dict[str, Image], taken: dict[str, list[dict[str, float]]]
) -> None:
    """Versions, medians, spread and ratios, on stdout."""
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True)
    lines = [
        f"{version.stdout.splitlines()[0]}; Linux {platform.release()}; {os.cpu_count()} x {_processor()}",
        f"load of the host {os.getloadavg()[0]:.1f}, of which the machine is up to 2",
        f"debian:{options.suite}, -accel {options.accel} -cpu max -smp 2 -m 512, boots in turn",
        *(f"{name:<8} {shlex.quote(image.cmdline or '')}" for name, image in images.items()),
    ]
    for what in ("ready", "settled", "processor"):
        seconds = {name: [figures[what] for figures in taken[name]] for name in images}
        lines += [describe(f"{what}, {name}", values) for name, values in seconds.items()]
        ratio = statistics.median(seconds["trimmed"]) / statistics.median(seconds["stock"])
        lines.append(f"{what}, trimmed to stock: {ratio:.2f}")
    print("\n".join(lines))  # noqa: T201


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
