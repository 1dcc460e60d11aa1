"""What a failure costs: evidence, a kept machine, and the opening of it. Run by hand:

    python tests/bench/failure.py [--count N]

Failing tests run in turn without anything, with evidence, and with their machines kept too, over one store.
Each figure is from a test's begin to its end, the machine's hand-over included. Prints a table (Markdown), with
versions and date.
"""

# ruff: noqa: T201 - a script's output is printed

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

CONFTEST = """
import json, time
from pathlib import Path

began = {}
took = []

def pytest_runtest_logstart(nodeid):
    began[nodeid] = time.monotonic()

def pytest_runtest_logfinish(nodeid):
    took.append(time.monotonic() - began[nodeid])

def pytest_terminal_summary(config):
    Path("took.json").write_text(json.dumps(took[1:]))  # the first one waits for its state
"""
TESTS = """
import pytest

@pytest.mark.parametrize("number", range({count} + 1))
def test_fails(vm, number):
    vm.succeed("head -c 10000000 /dev/urandom >/dev/shm/data; head -c 10000000 /dev/urandom >/root/data")
    vm.succeed("sleep 2")  # as a test has it: the next machine is made meanwhile
    assert 0
"""
WAYS = {
    "neither": ["--vmsnap-artifacts=none"],
    "evidence": [],
    "evidence, and kept": ["--vmsnap-keep=failed"],
}
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5, help="failing tests in each of 3 runs of each way")
    count = parser.parse_args().count
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="vmsnap-bench-") as name:
        project = Path(name)
        (project / "pytest.ini").write_text("[pytest]\n")
        (project / "conftest.py").write_text(CONFTEST)
        (project / "test_it.py").write_text(TESTS.format(count=count))
        run(project, "-k", "0")  # the image, the state
        for _ in range(ROUNDS):
            for way, options in WAYS.items():
                header = run(project, *options)
                took[way] += json.loads((project / "took.json").read_text())
        command = [str(Path(sys.executable).with_name("vmsnap"))]
        opened = [timed(project, *command, "open", "test_fails[1]", "--exec", "true") for _ in range(5)]
        first = [timed(project, *command, "open", "base", "--exec", "true") for _ in range(5)]
        subprocess.run([*command, "drop", "--all"], cwd=project, check=True, capture_output=True)
    print(f"{date.today().isoformat()}: {header}: median (least to most)\n\n| what | time |\n| --- | --- |")  # noqa: DTZ011
    for way, seconds in took.items():
        print(f"| a failing test with {way} | {shown(seconds)} |")
    print(f"| `vmsnap open TEST --exec true`, the whole process | {shown(opened)} |")
    print(f"| `vmsnap open STATE --exec true`, the whole process | {shown(first)} |")
    base = statistics.median(took["neither"])
    for way in ("evidence", "evidence, and kept"):
        print(f"\n{way}: {statistics.median(took[way]) - base:.2f} s more at the median")


def run(project: Path, *options: str) -> str:
    """One run; returns the line of its header that has the versions."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", *options]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if "failed" not in done.stdout.splitlines()[-1] or "error" in done.stdout.splitlines()[-1]:
        raise SystemExit(done.stdout)
    return next(line for line in done.stdout.splitlines() if ", QEMU " in line).split(": ", 1)[1][:80]


def timed(project: Path, *command: str) -> float:
    began = time.monotonic()
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    return time.monotonic() - began


def shown(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    main()
