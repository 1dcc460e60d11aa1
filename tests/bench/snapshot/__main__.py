"""Snapshots within a test, and the way back, beside QEMU's own ways. Run by hand:

    python tests/bench/snapshot [--times 8] [--size 512:0] [--size 2048:1024] [--out DIR]

One machine for each size (its memory, and how much of it is in use, in MiB), on one image, in one run, each
with the same change (10 MB in memory, 10 MB on disk) since it was clean. The way back is with the first
command's answer, by our shell for all. Writes ``snapshot.md`` to DIR.
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

HERE = Path(__file__).parent


def measure(memory: int, used: int, times: int, directory: Path) -> dict[str, Any]:
    target = directory / f"{memory}.json"
    environment = {
        "VMSNAP_BENCH_TIMES": str(times),
        "VMSNAP_BENCH_USED": str(used),
        "VMSNAP_BENCH_RESULTS": str(target),
    }
    command = [sys.executable, "-m", "pytest", HERE / "suite.py", "-q", "-s", "-x", f"--vmsnap-memory={memory}"]
    subprocess.run([*command, "-p", "no:cacheprovider"], env=os.environ | environment, check=True)
    found: dict[str, Any] = json.loads(target.read_text())
    return found


def shown(values: list[float]) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    unit, factor = ("ms", 1000) if middle < 1 else ("s", 1)
    return f"{middle * factor:.3g} {unit} ({low * factor:.3g} to {high * factor:.3g})"


def table(results: dict[tuple[int, int], dict[str, Any]]) -> str:
    versions = next(iter(results.values()))["versions"]
    heads = [f"{memory} MiB, {used or 'nothing'} in use" for memory, used in results]
    lines = [
        f"{datetime.datetime.now(datetime.UTC).date()}, {platform.machine()}, {os.cpu_count()} CPUs, "
        f"{versions['accel']}, QEMU {versions['qemu']}, libvirt {versions['libvirt']}: median (least to most).",
        "",
        f"| what | {' | '.join(heads)} |",
        f"| --- |{' --- |' * len(heads)}",
    ]
    names = list(next(iter(results.values()))["found"])
    lines += [
        f"| {name} | {' | '.join(shown(each['found'][name]) for each in results.values())} |" for name in names
    ]
    lines.append("")
    for (memory, used), each in results.items():
        notes = each["notes"]
        middle = {name: statistics.median(values) for name, values in each["found"].items()}
        lines.append(
            f"- {memory} MiB, {used} in use: a snapshot takes {middle['snapshot'] / middle['savevm']:.2f} of "
            f"`savevm`; the way back {middle['revert, nothing ahead, first time'] / middle['loadvm']:.2f} of "
            f"`loadvm`, {middle['revert, made ahead'] / middle['loadvm']:.4f} where it was made ahead; 50 "
            f"rollbacks {notes['rollbacks']:.1f} s, each from elsewhere "
            f"{notes['rollbacks from elsewhere']:.1f} s; kept: {statistics.median(notes['kept']):.0f} MiB, "
            f"with the memory file {statistics.median(notes['kept with its memory file']):.0f} MiB."
        )
    return "\n".join(lines) + "\n"


def size(text: str) -> tuple[int, int]:
    memory, _, used = text.partition(":")
    return int(memory), int(used or 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=8)
    parser.add_argument("--size", type=size, action="append", metavar="MEMORY:USED")
    parser.add_argument("--out", type=Path, default=Path())
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    sizes = arguments.size or [(512, 0), (2048, 1024)]
    with tempfile.TemporaryDirectory() as directory:
        results = {pair: measure(*pair, arguments.times, Path(directory)) for pair in sizes}
    (arguments.out / "snapshot.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
