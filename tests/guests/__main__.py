"""Runs the contract on each guest: `tests/guests/run`."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from .guests import GUESTS, Guest

ROOT = Path(__file__).parents[2]
ALL = ("tests/guest", "--ignore=tests/guest/system")
SHORT = (
    "tests/guest/test_power.py::test_a_reboot_comes_back_with_the_same_disk_and_a_new_boot",
    "tests/guest/test_waits.py",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/guests/run", description=__doc__)
    parser.add_argument("--short", action="store_true", help="only a boot, a reboot, and a wait for a service")
    parser.add_argument("guests", nargs="*", metavar="GUEST", help=f"one of {', '.join(GUESTS)} (default: all)")
    arguments = parser.parse_args()
    names = arguments.guests or list(GUESTS)
    if unknown := [name for name in names if name not in GUESTS]:
        parser.error(f"unknown guests: {', '.join(unknown)}")
    failed = [name for name in names if not run_contract(name, GUESTS[name], SHORT if arguments.short else ALL)]
    print(f"guests: {len(names) - len(failed)} passed the contract, {len(failed)} failed", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run_contract(name: str, guest: Guest, paths: tuple[str, ...]) -> bool:
    """Run the contract in `paths` on the guest, and show how long it took; returns whether it passed."""
    image = guest.find_image()
    print(f"==> {name}", flush=True)
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "--no-header", "-m", "contract and not thorough"]
    options = [f"--vmsnap-image={image}", *guest.options, "--vmsnap-timings"]
    done = subprocess.run(
        [*command, *options, *paths, *guest.more_tests], cwd=ROOT, check=False, env=os.environ
    )
    print(f"==> {name}: status {done.returncode} after {time.monotonic() - start:.0f} s", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    main()
