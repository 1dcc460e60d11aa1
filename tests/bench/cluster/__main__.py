"""What a cluster costs, beside one machine and beside other ways. Run by hand:

    python -m tests.bench.cluster [--times 20] [--rounds 2] [arguments for pytest]

Three machines of 512 MiB of one state, with 128 in use, in one run with one machine of that state; the same
machines booted; the same under libvirt's own snapshots. Then the way between two guests: through the switch,
and by QEMU's `-netdev socket` from one to the other. And 20 tests of a cluster on two workers, twice. Prints
medians and the middle half.
"""

# ruff: noqa: T201 - a script's output is printed

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pytest_vmsnap.model import Image
from tests.bench.cluster.link import compare
from tests.bench.cluster.workers import two_runs
from tests.bench.revert.__main__ import shown

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def suite(times: int, arguments: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        target = Path(place) / "results.json"
        environment = {"VMSNAP_BENCH_TIMES": str(times), "VMSNAP_BENCH_RESULTS": str(target)}
        command = [sys.executable, "-m", "pytest", HERE / "suite.py", "-q", "-x", "--vmsnap-memory=512"]
        command += ["-p", "no:cacheprovider", "-p", "no:randomly", "--vmsnap-order=none", *arguments]
        subprocess.run(command, env=os.environ | environment, check=True, cwd=ROOT)
        found: dict[str, Any] = json.loads(target.read_text())
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    options, arguments = parser.parse_known_args()
    found = suite(options.times, arguments) | two_runs(arguments)
    versions, image = found.pop("versions"), found.pop("image")
    print(
        f"{datetime.datetime.now(datetime.UTC).date()}, {platform.machine()}, {os.cpu_count()} CPUs, "
        f"{versions['accel']}, QEMU {versions['qemu']}, libvirt {versions['libvirt']}: median (middle half).\n"
    )
    print("| what | measured |\n| --- | --- |")
    for name, values in found.items():
        number = f"{values:.3g}" if isinstance(values, float) else values
        text = shown(values) if isinstance(values, list) else number
        print(f"| {name} | {text} |")
    if options.rounds:
        paths = {name: Path(path) for name, path in image.items()}
        links = compare(Image(key="bench", origin="bench", format="qcow2", **paths), options.rounds)
        for name, (rates, trips) in links.items():
            low, _, high = statistics.quantiles(rates, n=4)
            rate, trip = statistics.median(rates), statistics.median(trips)
            print(f"| {name} | {rate:.1f} MiB/s ({low:.1f} to {high:.1f}), round trip {trip:.2f} ms |")
        through, direct = (statistics.median(links[name][0]) for name in ("the switch", "-netdev socket"))
        print(f"\n- throughput: the switch has {through / direct:.2f} of -netdev socket.")
    median = {name: statistics.median(values) for name, values in found.items() if isinstance(values, list)}
    on_demand = median["three machines, made on demand"] / median["one machine, made on demand"]
    memory = found["PSS of three, MiB"] / found["PSS of one, MiB"]
    ahead = median["three machines, made ahead"]
    print(f"- on demand, three machines take {on_demand:.2f} times one, {memory:.2f} times its memory.")
    for name in ("three machines, booted", "libvirt's snapshot-revert on each"):
        print(f"- {name}: {median[name] / ahead:.0f} times three machines made ahead.")


if __name__ == "__main__":
    main()
