"""What a registry saves: a suite of four states on an empty store, built or pulled, and in four shards.

    python -m tests.bench.fleet [--times 3] [--memory 512]

It starts a registry (Debian's docker-registry) on the loopback interface. In one run it measures, from pytest's
start to the first answer of the first test: an empty store that builds, and an empty store that pulls; the
bytes on the wire beside what the entries take on disk; and four shards side by side, each with an empty store,
beside one job.
"""

# ruff: noqa: T201 - a script's output is printed

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ..registry_server import RegistryServer, serving

SHARDS = 4
NAMES = ("one", "two", "three", "four")
CONFTEST = """
import os, time
import pytest
from pytest_vmsnap import state

def install(vm, number):
    # 8 MiB of programs, libraries and texts, as a package brings them
    vm.succeed(f"tar -cC / usr | tail -c +{number * 8 << 20} | head -c 8M >/root/{number}; sync")

@state
def one(vm): install(vm, 1)

@state(parent=one)
def two(vm): install(vm, 2)

@state(parent=one)
def three(vm): install(vm, 3)

@state(parent=two)
def four(vm): install(vm, 4)


@pytest.fixture(autouse=True)
def _answered(vm):
    vm.succeed("true")
    with open(os.environ["ANSWERED"], "a") as file:
        print(time.time(), file=file)
"""
TESTS = """
import pytest

@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("state", [pytest.param(name, marks=pytest.mark.vm_state(name)) for name in STATES])
def test_it(vm, state, number):
    vm.succeed("sleep 1")
""".replace("STATES", repr(NAMES))


def run(project: Path, store: Path, *arguments: str, registry: str = "") -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "VMSNAP_STORE": str(store),
        "ANSWERED": str(store.with_suffix(".answered")),
        "VMSNAP_REGISTRY": registry,
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    log = store.with_suffix(".log").open("wb")
    return subprocess.Popen(command, cwd=project, env=environment, stdout=log, stderr=subprocess.STDOUT)


def finished(process: subprocess.Popen[bytes], store: Path) -> None:
    if status := process.wait():
        raise SystemExit(f"pytest ended with {status}:\n{store.with_suffix('.log').read_text()[-4000:]}")


def first_answer(project: Path, store: Path, *arguments: str, registry: str = "") -> tuple[float, float]:
    """Seconds to the first test's first answer, and to the end."""
    started = time.time()
    finished(run(project, store, *arguments, registry=registry), store)
    ended = time.time()
    answers = store.with_suffix(".answered").read_text().split()
    return float(answers[0]) - started, ended - started


def disk_bytes(*places: Path) -> int:
    files = {path.stat().st_ino: path.stat() for place in places for path in place.rglob("*") if path.is_file()}
    return sum(found.st_blocks * 512 for found in files.values())


def wire_bytes(server: RegistryServer) -> int:
    return sum(path.stat().st_size for path in server.blobs())


def push(project: Path, store: Path, server: RegistryServer) -> list[float]:
    """Push the states, parents first; for each child, the bytes on the wire over those of its entry."""
    environment = os.environ | {"VMSNAP_STORE": str(store), "VMSNAP_REGISTRY": server.address}
    entries = {}
    for meta in (store / "states").glob("*/meta.json"):
        entries[json.loads(meta.read_text())["origin"]["name"]] = meta.parent
    command = [Path(sys.executable).with_name("vmsnap"), "push"]
    sizes = []
    for name in ("base", *NAMES):
        before = wire_bytes(server)
        subprocess.run([*command, name], cwd=project, env=environment, check=True, stdout=subprocess.DEVNULL)
        sizes.append((wire_bytes(server) - before) / disk_bytes(entries[name]))
    return sizes[1:]


def shown(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} s ({min(values):.1f} to {max(values):.1f})"


def measure(scratch: Path, server: RegistryServer, times: int) -> None:
    project = scratch / "project"
    project.mkdir()
    (project / "conftest.py").write_text(CONFTEST)
    (project / "test_it.py").write_text(TESTS)
    built, pulled = [], []
    whole, whole_pulled = [], []
    for number in range(times):
        store = scratch / f"built-{number}"
        first, end = first_answer(project, store)
        built.append(first)
        whole.append(end)
    source = scratch / "built-0"
    finished(run(project, source), source)  # by hand, one knows the states of the last run
    children = push(project, source, server)
    for number in range(times):
        first, end = first_answer(project, scratch / f"pulled-{number}", registry=server.address)
        pulled.append(first)
        whole_pulled.append(end)
    print(
        f"to the first answer: built {shown(built)}, pulled {shown(pulled)}, "
        f"{statistics.median(pulled) / statistics.median(built):.2f} of it"
    )
    print(f"the whole suite: built {shown(whole)}, pulled {shown(whole_pulled)}")
    on_disk = disk_bytes(source / "images", source / "states")
    sent = wire_bytes(server)
    print(f"on disk {on_disk / 1e6:.0f} MB, on the wire {sent / 1e6:.0f} MB, {sent / on_disk:.2f} of it")
    ratios = ", ".join(f"{each:.2f}" for each in children)
    print(f"a state with a parent, on the wire: {ratios} of what it changed")
    shards = []
    for number in range(times):
        started = time.time()
        stores = [scratch / f"shard-{number}-{index}" for index in range(1, SHARDS + 1)]
        jobs = [
            run(project, store, f"--vmsnap-shard={index}/{SHARDS}", registry=server.address)
            for index, store in enumerate(stores, 1)
        ]
        for job, store in zip(jobs, stores, strict=True):
            finished(job, store)
            assert "built" not in store.with_suffix(".log").read_text().splitlines()[-2]
        shards.append(time.time() - started)
    print(
        f"{SHARDS} shards side by side on this host, empty stores: {shown(shards)}; one job that builds: "
        f"{shown(whole)}; nothing was built in a shard"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        (scratch / "registry").mkdir()
        with serving(scratch / "registry") as server:
            measure(scratch, server, arguments.times)


if __name__ == "__main__":
    main()
