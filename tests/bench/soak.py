"""Whether many reverts leave anything behind: memory, descriptors, threads, files, processes. Run by hand:

    python tests/bench/soak.py [--times 300] [arguments for pytest]

Prints what the process has after a tenth of the tests and after all of them.
"""

# ruff: noqa: T201 - a script's output is printed

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_vmsnap import Machine
    from pytest_vmsnap.session import VmsnapSession

REST_SECONDS = 30.0
TIMES = int(os.environ.get("VMSNAP_BENCH_TIMES", "300"))


def census(vmsnap: VmsnapSession) -> dict[str, int]:
    gc.collect()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    host = vmsnap._engine.host
    assert host
    return {
        "memory, KiB": int(status["VmRSS"].split()[0]),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "files": sum(len(files) for place in (host.run.data, host.run.sockets) for *_, files in os.walk(place)),
        "processes": len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()),
    }


@pytest.mark.parametrize("number", range(TIMES))
def test_again(vm: Machine, vmsnap: VmsnapSession, number: int) -> None:
    vm.fail("test -e /root/dirty")
    vm.succeed(f"echo {number} >/root/dirty")
    if number in (TIMES // 10, TIMES - 10):
        print(f"\nafter {number + 1}: {census(vmsnap)}")
        time.sleep(REST_SECONDS)  # so that what is ended in the background has ended
        print(f"after a rest: {census(vmsnap)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=300)
    arguments, rest = parser.parse_known_args()
    command = [sys.executable, "-m", "pytest", __file__, "-s", "-q", "-p", "no:cacheprovider", *rest]
    environment = os.environ | {"VMSNAP_BENCH_TIMES": str(arguments.times)}
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
