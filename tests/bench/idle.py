"""What a machine that waits costs, while it runs and while it is paused, and what its clock says. Run by hand:

    python tests/bench/idle.py [arguments for pytest]

Prints for each stretch of its waiting the share of a processor that its QEMU takes, then its memory (PSS) and
the lines that its journal has got meanwhile; and how far the clock is off at the hand-over.
"""

# ruff: noqa: T201 - a script's output is printed

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_vmsnap import Machine
    from pytest_vmsnap.host import Domain
    from pytest_vmsnap.session import VmsnapSession

STRETCHES = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0)  # seconds since it was made
TICKS = os.sysconf("SC_CLK_TCK")


def busy(pid: int) -> float:
    """Seconds of processor time that a process has taken (proc(5), fields 14 and 15 of stat)."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


def pss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def clock_off(vm: Machine) -> float:
    before = time.time()
    said = float(vm.succeed("date +%s.%N"))
    return said - (before + time.time()) / 2


def shares(domain: Domain) -> list[str]:
    pid = domain.pid()
    assert pid
    began, found = time.monotonic(), []
    for first, last in itertools.pairwise(STRETCHES):
        spent = busy(pid)
        time.sleep(max(0.0, began + last - time.monotonic()))
        found.append(f"{first:.0f} to {last:.0f} s: {100 * (busy(pid) - spent) / (last - first):.1f} %")
    return found


@pytest.mark.parametrize("waited", ["at once", "for 4 s", "for 40 s, paused after the first"])
def test_waiting(vm: Machine, vmsnap: VmsnapSession, waited: str) -> None:
    print(f"\nhanded over {waited}: its clock is {1000 * clock_off(vm):+.0f} ms off, up to a command's time")
    vm.run("true")
    if waited == "at once":
        time.sleep(4)
    elif waited == "for 4 s":
        time.sleep(40)


def test_running(vm: Machine) -> None:
    domain = vm._backend.domain
    lines = "journalctl --no-pager -q | wc -l"
    before = int(vm.succeed(lines))
    print("\nrunning:", "; ".join(shares(domain)))
    print(f"its journal has {int(vm.succeed(lines)) - before} lines more")
    pid = domain.pid()
    assert pid
    print(f"its memory: {pss_mib(pid):.0f} MiB")
    vm.pause()
    spent = busy(pid)
    time.sleep(10)
    print(f"paused: {10 * (busy(pid) - spent):.1f} %")
    vm.resume()


def main() -> int:
    command = [sys.executable, "-m", "pytest", __file__, "-s", "-q", "-p", "no:cacheprovider", *sys.argv[1:]]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
