"""What memory machines take that share a snapshot, beside as many that share nothing. Run by hand:

    python tests/bench/memory.py [--memory 2048] [--used 1024] [arguments for pytest]

Four machines on two workers of xdist, two on each, all of one state with memory in use; and four that were
booted on their own and have filled as much. Prints the memory of all QEMUs (PSS, which counts a page that
several map in parts).
"""

# ruff: noqa: T201 - a script's output is printed

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.host import processes

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap import Machine
    from pytest_vmsnap.session import VmsnapSession

USED_MIB = int(os.environ.get("VMSNAP_BENCH_USED", "1024"))
PLACE = Path(os.environ.get("VMSNAP_BENCH_PLACE", ""))
FILL = f"mount -o remount,size={USED_MIB + 64}M /dev/shm; head -c {USED_MIB << 20} /dev/urandom >/dev/shm/used"
PATIENCE = 600.0  # seconds until the other worker's machines are there
WORKERS = 2


def pss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def note(name: str, machines: list[Machine], vmsnap: VmsnapSession) -> None:
    """Write down what each of `machines` takes."""
    pids = {guest: pid for pid, guest in processes.qemus()}
    sizes = [pss_mib(pids[machine.domain.name()]) for machine in machines]
    facts = vmsnap.facts
    words = f"libvirt {facts.libvirt_version}, QEMU {facts.qemu_version}, {facts.accelerator.name}"
    (PLACE / name).write_text("\n".join([words, *map(str, sizes)]))


def met(name: str) -> None:
    """Return when all workers have come here."""
    worker = os.environ["PYTEST_XDIST_WORKER"]
    (PLACE / f"{name}-{worker}").touch()
    deadline = time.monotonic() + PATIENCE
    while len(list(PLACE.glob(f"{name}-*"))) < WORKERS:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("number", range(WORKERS))
def test_sharing(vm_factory: Callable[..., Machine], vmsnap: VmsnapSession, number: int) -> None:
    machines = [vm_factory("filled"), vm_factory("filled")]
    for machine in machines:
        machine.succeed("cksum /dev/shm/used", timeout=PATIENCE)  # all of it is read
    met("there")
    note(f"shared-{number}", machines, vmsnap)
    met("measured")


def test_apart(vm_factory: Callable[..., Machine], vmsnap: VmsnapSession) -> None:
    machines = [vm_factory(name=str(number)) for number in range(2 * WORKERS)]
    for machine in machines:
        machine.crash()
        machine.start()  # with empty memory
        machine.succeed(FILL, timeout=PATIENCE)
    note("apart", machines, vmsnap)


CONFTEST = """
from pytest_vmsnap import state

@state
def filled(vm):
    vm.succeed({fill!r}, timeout={patience})
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--memory", type=int, default=2048)
    parser.add_argument("--used", type=int, default=1024)
    options, arguments = parser.parse_known_args()
    os.environ["VMSNAP_BENCH_USED"] = str(options.used)
    fill = FILL.replace(f"{USED_MIB + 64}M", f"{options.used + 64}M").replace(
        str(USED_MIB << 20), str(options.used << 20)
    )
    with ExitStack() as stack:
        project = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["VMSNAP_BENCH_PLACE"] = str(project)
        (project / "conftest.py").write_text(CONFTEST.format(fill=fill, patience=PATIENCE))
        (project / "test_memory.py").write_text(Path(__file__).read_text())
        common = [f"--vmsnap-memory={options.memory}", "--vmsnap-standby=0", "-q", "-p", "no:cacheprovider"]
        for more in (["-k", "sharing", f"-n{WORKERS}"], ["-k", "apart"]):
            subprocess.run(
                [sys.executable, "-m", "pytest", *common, *more, *arguments], cwd=project, check=True
            )
        words, shared, apart = "", [], []
        for path in sorted(project.glob("shared-[0-9]")):
            words, *sizes = path.read_text().splitlines()
            shared += [float(size) for size in sizes]
        apart = [float(size) for size in (project / "apart").read_text().splitlines()[1:]]
    print("| four machines | memory of all QEMUs (PSS) | of each |\n| --- | --- | --- |")
    for name, found in ((f"of one state, on {WORKERS} workers", shared), ("booted on their own", apart)):
        print(f"| {name} | {sum(found):.0f} MiB | {', '.join(f'{size:.0f}' for size in found)} |")
    print(
        f"\n{options.memory} MiB each, {options.used} in use; {words}, Python {platform.python_version()}, "
        f"{datetime.date.today()}; shared to apart 1 to {sum(apart) / sum(shared):.1f}"  # noqa: DTZ011
    )


if __name__ == "__main__":
    main()
