"""How fast files go into a guest and out of it, and how much memory that takes on the host. Run by hand:

    python tests/bench/transfer.py [--times 3] [--size 256] [--files 20000] [--out DIR] [arguments for pytest]

One machine, in one run: `vm.upload` and `vm.download`, scp (OpenSSH's client, with the guest's sshd), and the
guest agent's file commands. What is copied: a file of random bytes (``--size`` in MiB), many files of 1 KiB, a
sparse file of 3 GiB with 2 MiB of data. Emulated processors encrypt slowly, and scp sends the holes: it and the
guest agent get a sixteenth of each, so compare rates. Every copy is verified. Memory is how much the resident
memory of this process grew while it copied, at its highest.
Writes ``transfer.md`` to DIR.
"""

# ruff: noqa: T201 - a script's output is printed

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.guest.agent.channel import AgentChannel
from pytest_vmsnap.guest.streams import FileSink

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap import Machine
    from pytest_vmsnap.session import VmsnapSession

TIMES, SIZE, FILES, OUT = (f"VMSNAP_BENCH_{name}" for name in ("TIMES", "SIZE", "FILES", "OUT"))
MIB = 1 << 20
SPARSE_MIB = 3072
PART = 16  # one of so many parts, for the slow ways
IN_GUEST = "/var/tmp/bench"


@dataclass
class Figures:
    """Seconds and MiB of memory of each copy of one kind."""

    seconds: list[float]
    memory: list[float]


def kib(name: str) -> int:
    lines = (line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(dict(lines)[name].split()[0])


def measured(copy: Callable[[], object], figures: Figures) -> None:
    """Measure `copy`; proc(5): a 5 in ``clear_refs`` resets the highest resident memory (``VmHWM``)."""
    Path("/proc/self/clear_refs").write_text("5")
    before = kib("VmRSS")
    started = time.monotonic()
    copy()
    figures.seconds.append(time.monotonic() - started)
    figures.memory.append(max(0, kib("VmHWM") - before) / 1024)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def same(one: Path, other: Path) -> bool:
    return subprocess.run(["diff", "-rq", str(one), str(other)], check=False).returncode == 0


class Scp:
    """OpenSSH's scp to and from a machine."""

    def __init__(self, machine: Machine) -> None:
        access = machine.ssh
        options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        self._command = shlex.split(f"scp -q -r -p -i {access.key} -P {access.port} {options}")
        self._place = f"{access.user}@{access.host}"

    def put(self, local: Path, remote: str) -> None:
        subprocess.run([*self._command, str(local), f"{self._place}:{remote}"], check=True)

    def get(self, remote: str, local: Path) -> None:
        subprocess.run([*self._command, f"{self._place}:{remote}", str(local)], check=True)


@pytest.mark.timeout(0)
def test_transfer(vm: Machine, vmsnap: VmsnapSession, tmp_path: Path) -> None:
    times, size, count = (int(os.environ[name]) for name in (TIMES, SIZE, FILES))
    figures: dict[tuple[str, str, str], Figures] = defaultdict(lambda: Figures([], []))
    scp = Scp(vm) if shutil.which("scp") else None
    agent = AgentChannel(lambda: vm._backend.domain)
    agent.open(timeout=600)
    large, part = tmp_path / "large", tmp_path / "part"
    with large.open("wb") as file:
        for _ in range(size):
            file.write(os.urandom(MIB))
    part.write_bytes(large.read_bytes()[: size * MIB // PART])
    small, few = _files(tmp_path / "small", count), _files(tmp_path / "few", count // PART)
    sparse, short = (_sparse(tmp_path / f"sparse-{mib}", mib) for mib in (SPARSE_MIB, SPARSE_MIB // PART))
    back = tmp_path / "back"

    def both(what: str, way: str, source: Path, put: Callable[[], object], get: Callable[[], object]) -> None:
        vm.succeed(f"rm -rf {IN_GUEST}", timeout=600)
        shutil.rmtree(back, ignore_errors=True)
        back.unlink(missing_ok=True) if back.is_file() else None
        measured(put, figures[what, way, "up"])
        measured(get, figures[what, way, "down"])
        assert same(source, back), f"{what} by {way}"
        shutil.rmtree(back) if back.is_dir() else back.unlink()

    for _ in range(times):
        for what, source in (("one file", large), ("small files", small), ("sparse", sparse)):
            both(
                what,
                "vm.upload, vm.download",
                source,
                lambda source=source: vm.upload(source, IN_GUEST),
                lambda: vm.download(IN_GUEST, back),
            )
        if scp:
            for what, source in (
                ("one file", part),
                ("small files", few),
                ("sparse", short),
            ):
                both(
                    what,
                    "scp",
                    source,
                    lambda source=source: scp.put(source, IN_GUEST),
                    lambda: scp.get(IN_GUEST, back),
                )
        both("one file", "guest agent", part, lambda: agent_put(agent, part), lambda: agent_get(agent, back))
    print("\n" + (text := table(vmsnap, figures, size, count)))
    (Path(os.environ[OUT]) / "transfer.md").write_text(text)


def _files(path: Path, count: int) -> Path:
    """So many files of 1 KiB, a thousand in each directory."""
    for number in range(count):
        (path / str(number // 1000)).mkdir(parents=True, exist_ok=True)
        (path / str(number // 1000) / str(number)).write_bytes(os.urandom(1024))
    return path


def _sparse(path: Path, mib: int) -> Path:
    """A sparse file with a MiB of data at its beginning and at its end."""
    with path.open("wb") as file:
        file.write(os.urandom(MIB))
        file.seek((mib - 1) * MIB)
        file.write(os.urandom(MIB))
    return path


def agent_put(agent: AgentChannel, source: Path) -> None:
    agent.put(IN_GUEST, source.read_bytes(), timeout=600)


def agent_get(agent: AgentChannel, target: Path) -> None:
    with target.open("wb") as file:
        agent.get(IN_GUEST, FileSink(file), timeout=600)


def table(vmsnap: VmsnapSession, figures: dict[tuple[str, str, str], Figures], size: int, count: int) -> str:
    facts = vmsnap.facts
    lines = [
        f"{datetime.datetime.now(datetime.UTC).date()}, {platform.machine()}, {os.cpu_count()} CPUs, "
        f"{facts.accelerator.name}, QEMU {facts.qemu_version}, libvirt {facts.libvirt_version}: "
        f"median (least to most), one file of {size} MiB, {count} files of 1 KiB, a sparse file of "
        f"{SPARSE_MIB} MiB with 2 MiB of data; for scp and the guest agent a sixteenth of each.",
        "",
        "| what | way | direction | time | rate | memory |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (what, way, direction), found in sorted(figures.items()):
        middle, low, high = statistics.median(found.seconds), min(found.seconds), max(found.seconds)
        amount = {"small files": count, "one file": size, "sparse": SPARSE_MIB}[what]
        rate = amount / (1 if way.startswith("vm") else PART) / middle
        unit = "files/s" if what == "small files" else "MiB/s"
        lines.append(
            f"| {what} | {way} | {direction} | {middle:.2f} s ({low:.2f} to {high:.2f}) | {rate:.1f} {unit} | "
            f"{max(found.memory):.0f} MiB |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=Path())
    arguments, rest = parser.parse_known_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pytest", __file__, "-s", "-q", "-p", "no:cacheprovider", *rest]
    environment = {
        TIMES: str(arguments.times),
        SIZE: str(arguments.size),
        FILES: str(arguments.files),
        OUT: str(arguments.out.absolute()),
    }
    return subprocess.run(command, env=os.environ | environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
