"""How long it takes to have a machine as it was: this plugin beside the other ways. Run by hand:

    python tests/bench/revert [--times 20] [--size 512:0] [--size 2048:1024] [--out DIR]

One machine for each size (its memory, and how much of it is in use, in MiB), on one image, in one run. A figure
is the revert and the first command's answer; for the plugin also from the end of the test before, which has
pytest's own work between two tests in it.
Writes ``revert.md`` and ``revert.svg`` to DIR.
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
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PEER_TIMES = 10  # at most: they take seconds
SECOND_TIMES = 3
SECOND = "a second run, from pytest's start"
NOTES = ("busy", "pss", "versions")


def measure(memory: int, used: int, times: int, directory: Path) -> dict[str, Any]:
    target = directory / f"{memory}.json"
    environment = {
        "VMSNAP_BENCH_TIMES": str(times),
        "VMSNAP_BENCH_PEER_TIMES": str(min(times, PEER_TIMES)),
        "VMSNAP_BENCH_USED": str(used),
        "VMSNAP_BENCH_RESULTS": str(target),
    }
    command = [sys.executable, "-m", "pytest", HERE / "suite.py", "-q", "-s", "-x", f"--vmsnap-memory={memory}"]
    subprocess.run([*command, "-p", "no:cacheprovider"], env=os.environ | environment, check=True)
    found: dict[str, Any] = json.loads(target.read_text())
    # the state is in the store now
    found[SECOND] = [second_start(memory, environment, directory / "second") for _ in range(SECOND_TIMES)]
    return found


def second_start(memory: int, environment: dict[str, str], target: Path) -> float:
    """Seconds from the start of pytest's process to the first answer in its first test."""
    command = [sys.executable, "-m", "pytest", HERE / "second.py", "-q", f"--vmsnap-memory={memory}"]
    more = environment | {"VMSNAP_BENCH_RESULTS": str(target)}
    started = time.time()
    subprocess.run([*command, "-p", "no:cacheprovider"], env=os.environ | more, check=True)
    return float(target.read_text()) - started


def shown(values: list[float]) -> str:
    middle = statistics.median(values)
    low, high = min(values), max(values)
    if len(values) > 3:
        low, _, high = statistics.quantiles(values, n=4)
    unit, factor = ("ms", 1000) if middle < 1 else ("s", 1)
    return f"{middle * factor:.3g} {unit} ({low * factor:.3g} to {high * factor:.3g})"


def table(results: dict[tuple[int, int], dict[str, Any]]) -> str:
    versions = next(iter(results.values()))["versions"]
    heads = [f"{memory} MiB, {used or 'nothing'} in use" for memory, used in results]
    lines = [
        f"{datetime.datetime.now(datetime.UTC).date()}, {platform.machine()}, {os.cpu_count()} CPUs, "
        f"{versions['accel']}, QEMU {versions['qemu']}, libvirt {versions['libvirt']}: "
        "revert and first command's answer, median (middle half).",
        "",
        f"| way | {' | '.join(heads)} |",
        f"| --- |{' --- |' * len(heads)}",
    ]
    names = [name for name in next(iter(results.values())) if name not in NOTES]
    lines += [f"| {name} | {' | '.join(shown(found[name]) for found in results.values())} |" for name in names]
    lines.append("")
    for (memory, used), found in results.items():
        median = {name: statistics.median(found[name]) for name in names}
        at_once = statistics.mean(found["back-to-back"])
        lines += [
            f"- {memory} MiB, {used} in use: `loadvm` with the guest agent is "
            f"{median['loadvm, guest agent'] / median['standby']:.0f} times a standby, libvirt's revert "
            f"{median['libvirt revertToSnapshot, guest agent'] / median['standby']:.0f} times; back-to-back "
            f"a test waits {at_once:.2f} s at the mean, {at_once / median['loadvm, guest agent']:.2f} of "
            f"`loadvm`; a revert takes {found['busy']:.2f} s of processor time; an idle machine "
            f"{statistics.median(found['pss']):.0f} MiB (PSS)."
        ]
    return "\n".join(lines) + "\n"


def plot(results: dict[tuple[int, int], dict[str, Any]]) -> str:
    """Bars on a logarithmic scale from 1 ms to 100 s, as SVG."""
    import math

    names = [name for name in next(iter(results.values())) if name not in NOTES]
    left, width, row = 260, 440, 18
    bars, y = [], 30
    colours = ("#2b6cb0", "#dd6b20", "#2f855a")
    for name in names:
        bars.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{name}</text>')
        for found, colour in zip(results.values(), colours, strict=False):
            middle = statistics.median(found[name])
            length = max(1.0, width * (math.log10(middle) + 3) / 5)
            label = f"{1000 * middle:.3g} ms" if middle < 1 else f"{middle:.3g} s"
            bars.append(f'<rect x="{left}" y="{y}" width="{length:.0f}" height="{row - 4}" fill="{colour}"/>')
            bars.append(f'<text x="{left + length + 5:.0f}" y="{y + 11}">{label}</text>')
            y += row
        y += 6
    legend = "".join(
        f'<text x="{left + 190 * n}" y="16" fill="{colour}">{memory} MiB, {used} in use</text>'
        for n, ((memory, used), colour) in enumerate(zip(results, colours, strict=False))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 80}" height="{y + 10}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f"{legend}{''.join(bars)}</svg>\n"
    )


def size(text: str) -> tuple[int, int]:
    memory, _, used = text.partition(":")
    return int(memory), int(used or 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--size", type=size, action="append", metavar="MEMORY:USED")
    parser.add_argument("--out", type=Path, default=Path())
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    sizes = arguments.size or [(512, 0), (2048, 1024)]
    with tempfile.TemporaryDirectory() as directory:
        results = {pair: measure(*pair, arguments.times, Path(directory)) for pair in sizes}
    (arguments.out / "revert.md").write_text(table(results))
    (arguments.out / "revert.svg").write_text(plot(results))
    print(table(results))


if __name__ == "__main__":
    main()
