"""How long a command takes by the guest shell and by the guest agent, side by side. Run by hand:

    python tests/bench/channel.py [--times 200] [arguments for pytest]

One machine; the two channels in turn, so that what else the host does hits both alike. Prints medians, the
middle half's spread, and the ratio of the medians. "lean agent" is guest-exec and guest-exec-status alone,
without what makes a command safe (streams of any size, a group that can be killed).
"""

# ruff: noqa: T201 - a script's output is printed

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from pytest_vmsnap.guest import Request
from pytest_vmsnap.guest.agent.channel import AgentChannel

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap import Machine
    from pytest_vmsnap.session import VmsnapSession

TIMES = "VMSNAP_BENCH_TIMES"  # the plugin's own options are no place for it
COMMANDS = ("true", "/bin/true", "echo $((6 * 7))")


def measured(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return 1000 * (time.monotonic() - started)


def shown(name: str, times: list[float]) -> str:
    low, _, high = statistics.quantiles(times, n=4)
    spread = f"middle half {low:.2f} to {high:.2f}, least {min(times):.2f}"
    return f"  {name:<14}{statistics.median(times):8.2f} ms   ({spread})"


def lean(machine: Machine, command: str) -> None:
    domain = machine._backend.domain
    pid = domain.agent("guest-exec", path="/bin/sh", arg=["-c", command], capture_output=True, timeout=30)[
        "pid"
    ]
    while not domain.agent("guest-exec-status", pid=pid, timeout=30)["exited"]:
        pass


def test_channels(vm: Machine, vmsnap: VmsnapSession) -> None:
    times = int(os.environ[TIMES])
    agent = AgentChannel(lambda: vm._backend.domain)
    agent.open(timeout=60)
    facts = vmsnap.facts
    print(f"\n\nhost {platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    print(
        f"QEMU {facts.qemu_version}, libvirt {facts.libvirt_version}, "
        f"{facts.accelerator.name}, {vm.spec.cpus} CPU"
    )
    for command in COMMANDS:
        ways: dict[str, Callable[[], object]] = {
            "shell": lambda command=command: vm.run(command),
            "agent": lambda command=command: agent.run(Request(text=command), timeout=60),
            "lean agent": lambda command=command: lean(vm, command),
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(times):
            for name, call in ways.items():
                found[name].append(measured(call))
        print(f"{command!r}, {times} times each:")
        for name, values in found.items():
            print(shown(name, values))
        median = {name: statistics.median(values) for name, values in found.items()}
        for name in ("agent", "lean agent"):
            print(f"  {name} / shell: {median[name] / median['shell']:.1f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=200)
    arguments, rest = parser.parse_known_args()
    command = [sys.executable, "-m", "pytest", __file__, "-s", "-q", "-p", "no:cacheprovider", *rest]
    return subprocess.run(command, env=os.environ | {TIMES: str(arguments.times)}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
