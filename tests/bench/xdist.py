"""What a second worker of xdist saves, over an empty store and over one with the state in it. Run by hand:

    python tests/bench/xdist.py [--times 3] [--tests 40] [arguments for pytest]

Tests of a second each on one worker and on two: prints, as a table, the seconds of the whole of pytest's
process, what a test waited for its machine, and how many machines had been made ahead. The image is there in
all cases.
"""

# ruff: noqa: T201 - a script's output is printed

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from pytest_vmsnap.host import choose_uri, default_store
from pytest_vmsnap.model import Settings

if TYPE_CHECKING:
    from pytest_vmsnap import Machine

TESTS = int(os.environ.get("VMSNAP_BENCH_TESTS", "40"))


@pytest.mark.parametrize("number", range(TESTS))
def test_of_a_second(vm: Machine, number: int) -> None:
    vm.succeed("sleep 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A run: its `seconds`, the median wait for a machine in seconds, the share of machines made ahead."""

    seconds: float
    wait: float
    ahead: float
    versions: str


def measure(workers: int, store: Path, arguments: list[str]) -> Figures:
    report = store.parent / "report.xml"
    command = [sys.executable, "-m", "pytest", __file__, f"-n{workers}", f"--junitxml={report}", *arguments]
    environment = os.environ | {"VMSNAP_STORE": str(store)}
    started = time.monotonic()
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"], env=environment, check=False, capture_output=True, text=True
    )
    seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    found = {
        each.attrib["name"]: each.attrib["value"]
        for each in ElementTree.parse(report).findall("testsuite/properties/property")
    }
    versions = re.search(r"libvirt \S+, QEMU \S+, \w+", done.stdout)
    return Figures(
        seconds=seconds,
        wait=float(found["vmsnap_revert_seconds_median"]),
        ahead=int(found["vmsnap_made_ahead"]) / int(found["vmsnap_reverts"]),
        versions=versions[0] if versions else "",
    )


def empty_store(place: Path) -> Path:
    """A store in which there are the images of the person's own, and no state."""
    own = Path(
        os.environ.get("VMSNAP_STORE") or default_store(choose_uri(Settings(root=Path.cwd())))
    ).absolute()
    store = Path(tempfile.mkdtemp(dir=place)) / "store"
    store.mkdir(mode=0o700)
    for kind in ("images", "copies", "libvirt-capabilities"):
        if (own / kind).is_dir():
            shutil.copytree(own / kind, store / kind, copy_function=os.link)
    for name in ("accelerator.json", "format"):
        if (own / name).exists():
            shutil.copy(own / name, store / name)
    return store


def shown(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} s ({min(values):.1f} to {max(values):.1f})"


def row(name: str, runs: list[Figures]) -> str:
    wait = 1000 * statistics.median(run.wait for run in runs)
    ahead = 100 * statistics.median(run.ahead for run in runs)
    return f"| {name} | {shown([run.seconds for run in runs])} | {wait:.2g} ms | {ahead:.0f} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--tests", type=int, default=TESTS)
    options, arguments = parser.parse_known_args()
    os.environ["VMSNAP_BENCH_TESTS"] = str(options.tests)
    found: dict[tuple[int, str], list[Figures]] = {}
    with tempfile.TemporaryDirectory(dir=Path.home()) as name:
        for _ in range(options.times):
            for workers in (1, 2):
                store = empty_store(Path(name))
                for temperature in ("cold", "warm"):
                    figures = measure(workers, store, arguments)
                    found.setdefault((workers, temperature), []).append(figures)
                shutil.rmtree(store.parent)
    print("| workers, store | whole run | wait of a test, median | made ahead |\n| --- | --- | --- | --- |")
    for (workers, temperature), runs in sorted(found.items()):
        print(row(f"{workers}, {temperature}", runs))
    versions = next(iter(found.values()))[0].versions
    print(
        f"\n{options.tests} tests of 1 s; median (lowest to highest) of {options.times}; {versions}, Python "
        f"{platform.python_version()}, {os.cpu_count()} processors, {datetime.date.today()}"  # noqa: DTZ011
    )


if __name__ == "__main__":
    main()
