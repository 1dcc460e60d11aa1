"""How long guests of other kinds take to their first test. Run by hand:

    python -m tests.bench.guests [GUEST...]

For each guest (tests/guests/guests.py), with an image that is there and an empty store: the time of a run with
one test, which boots the guest and saves it, and of the same run again, which takes it from the store.
"""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ..guests.guests import GUESTS, Guest

TEST = "def test_it(vm):\n    vm.succeed('true')\n"
BUILT = re.compile(r"1 state built \((\d+) s\)")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.guests", description=__doc__)
    parser.add_argument("guests", nargs="*", metavar="GUEST", help=f"of {', '.join(GUESTS)} (default: all)")
    names = parser.parse_args().guests or list(GUESTS)
    print("| guest | boot and save | first test | first test, later runs |", flush=True)
    print("| --- | --- | --- | --- |", flush=True)
    for name in names:
        seconds = " | ".join(f"{each:.0f} s" for each in measured(GUESTS[name]))
        print(f"| {name} | {seconds} |", flush=True)


def measured(guest: Guest) -> tuple[float, float, float]:
    """Seconds: for the state, for a whole run that builds it, for a whole run that has it."""
    image = guest.find_image()
    with tempfile.TemporaryDirectory(prefix="vmsnap-bench-") as name:
        project = Path(name)
        (project / "test_it.py").write_text(TEST)
        (project / "pytest.ini").write_text("[pytest]\n")
        options = [f"--vmsnap-image={image}", f"--vmsnap-store={project / 'store'}", *guest.options]
        if guest.image:
            run(project, *options, "--vmsnap-refresh-state=base")  # builds the image
        said, first = run(project, *options, "--vmsnap-refresh-state=base")
        found = BUILT.search(said)
        _, later = run(project, *options)
        return float(found[1]) if found else float("nan"), first, later


def run(project: Path, *options: str) -> tuple[str, float]:
    """What pytest says, and the seconds that it takes."""
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout, time.monotonic() - start


if __name__ == "__main__":
    main()
