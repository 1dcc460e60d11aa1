"""What states in the store are worth: 30 tests over 4 states, cold, warm, and booting for each. By hand:

    python tests/bench/states.py [--boot]

The states are a tree of depth 3. Prints the time until the first test begins and that of the whole run, on a
store without the states (the image is there), with them, and, with ``--boot``, where each test cuts the power
and boots again from its state's disk.
"""

# ruff: noqa: T201 - a script's output is printed

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFTEST = """
import os, time
from pathlib import Path

import pytest
from pytest_vmsnap import state

HERE = Path(__file__).parent
NONCE = "@nonce@"  # no store has these states


def note(what):
    with open(HERE / "built", "a") as notes:
        notes.write(what + "\\n")


def pytest_vmsnap_prepare(vm):
    note("base")
    vm.write_text("/root/base", NONCE)


@state
def database(vm):
    note("database")
    vm.succeed("head -c 20000000 /dev/urandom >/root/data; head -c 5000000 /dev/urandom >/dev/shm/data")


@state(parent=database)
def service(vm):
    note("service")
    vm.succeed("cp /root/data /root/more; sleep 100000 >/dev/null 2>&1 &")


@state
def other(vm):
    note("other")
    vm.succeed("echo other >/root/other")


def pytest_runtest_call(item):
    first = HERE / "first"
    if not first.exists():
        first.write_text(str(time.time()))


@pytest.fixture(autouse=True)
def booted(vm):
    if "BOOT" in os.environ:
        vm.succeed("sync")
        vm.crash()
        vm.start()
"""
STATES = ("base", "database", "service", "other")


def tests() -> str:
    lines = ["import pytest", ""]
    for number in range(30):
        state = STATES[number % len(STATES)]
        mark = f'@pytest.mark.vm_state("{state}")\n' if state != "base" else ""
        lines.append(f'{mark}def test_{number}(vm):\n    vm.succeed("cat /root/base")\n')
    return "\n".join(lines)


def measure(project: Path, **environment: str) -> tuple[float, float, list[str]]:
    """Seconds until the first test began, and of the whole; and what was built."""
    for name in ("first", "built"):
        (project / name).unlink(missing_ok=True)
    started = time.time()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    subprocess.run(command, cwd=project, env=os.environ | environment, check=True, capture_output=True)
    whole = time.time() - started
    notes = project / "built"
    return (
        float((project / "first").read_text()) - started,
        whole,
        notes.read_text().split() if notes.exists() else [],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--boot", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        project = Path(directory)
        (project / "conftest.py").write_text(CONFTEST.replace("@nonce@", secrets.token_hex(8)))
        (project / "test_states.py").write_text(tests())
        runs = [("cold", {}), ("warm", {}), ("warm again", {})]
        runs += [("booting for each test", {"BOOT": "1"})] if arguments.boot else []
        found = {}
        for name, environment in runs:
            found[name] = first, whole, built = measure(project, **environment)
            print(f"{name}: first test after {first:.2f} s, {whole:.1f} s in all; built: {built or 'nothing'}")
        cold, warm = found["cold"], found["warm"]
        print(
            f"cold is {cold[0] / warm[0]:.1f} times warm until the first test, {cold[1] / warm[1]:.1f} in all"
        )


if __name__ == "__main__":
    main()
