"""Which QEMU loads a state that another version saved. Run by hand, as root:

    python -m tests.bench.qemu_states ROOT...

Each ROOT is the root file system of another Debian, as `tests/versions/run` keeps them; this host's QEMU comes
first. The guest counts on its serial console. A state is its memory file and its device state
(`x-ignore-shared`), as the plugin saves them, on the oldest machine type that all have. It is loaded if
the guest goes on to count where it was.
"""

# ruff: noqa: T201 - a script's output is printed

from __future__ import annotations

import argparse
import itertools
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from pytest_vmsnap import image
from pytest_vmsnap.model import MachineSpec
from pytest_vmsnap.progress import Progress
from pytest_vmsnap.states import image_request
from pytest_vmsnap.store import Store

from ..guest.images import busybox

if TYPE_CHECKING:
    from collections.abc import Iterator

MACHINE = "pc-q35-7.2"
PROCESSORS = ("max", "qemu64")
COUNTING = "::once:/bin/sh -c 'i=0; while :; do i=$((i+1)); echo count $i >/dev/ttyS0; sleep 1; done'\n"
SECONDS = 120.0


class Monitor:
    """The monitor of a QEMU (QMP), at the socket `path`."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(SECONDS)
        wait_until(lambda: self._connects(path), "QEMU's monitor")
        self._file = self._socket.makefile("rw")
        self._file.readline()
        self.run("qmp_capabilities")

    def _connects(self, path: Path) -> bool:
        try:
            self._socket.connect(str(path))
        except OSError:
            return False
        return True

    def run(self, command: str, **arguments: object) -> Any:
        json.dump({"execute": command, "arguments": arguments}, self._file)
        self._file.flush()
        while True:
            answer = json.loads(self._file.readline())
            if "error" in answer:
                raise RuntimeError(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]

    def wait_for_migration(self) -> None:
        def status() -> str:
            found: str = self.run("query-migrate").get("status", "")
            if found == "failed":
                raise RuntimeError("the migration failed")
            return found

        wait_until(lambda: status() == "completed", "the migration")


def wait_until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not after {SECONDS:.0f} s")
        time.sleep(0.05)


@contextmanager
def qemu(root: Path, work: Path, processor: str, *more: str) -> Iterator[Monitor]:
    """A QEMU of the system in `root`, with its files in `work`, which that system has as /mnt."""
    command = [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-S"),
        *("-machine", f"{MACHINE},memory-backend=pc.ram,accel=tcg", "-cpu", processor, "-m", "160M"),
        *("-object", "memory-backend-file,id=pc.ram,size=160M,mem-path=/mnt/ram,share=on"),
        *("-kernel", "/mnt/kernel", "-initrd", "/mnt/initrd", "-append", "console=ttyS0 no_timer_check"),
        *("-serial", "file:/mnt/console", "-qmp", "unix:/mnt/monitor,server=on,wait=off"),
        *("-device", "virtio-serial-pci", "-device", "virtio-rng-pci", "-device", "vmgenid"),
        *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"),
        *("-blockdev", "driver=null-co,node-name=disk,size=1048576", "-device", "virtio-blk-pci,drive=disk"),
        *more,
    ]
    script = 'mount --bind "$1" "$2/mnt"; root=$2; shift 2; exec chroot "$root" "$@"'
    (work / "monitor").unlink(missing_ok=True)
    (work / "console").write_bytes(b"")
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-ec", script, "sh", work, root, *command],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Monitor(work / "monitor")
    except (RuntimeError, OSError, ValueError) as error:  # or it has ended: no answer is no JSON
        process.kill()
        assert process.stderr
        lines = [line for line in process.stderr.read().splitlines() if "warning:" not in line]
        raise RuntimeError(lines[0] if lines else str(error)) from error
    finally:
        process.kill()
        process.communicate()


def counts(work: Path) -> list[int]:
    return [int(found) for found in re.findall(r"count (\d+)", (work / "console").read_text(errors="replace"))]


def save(root: Path, work: Path, processor: str) -> int:
    """Save the guest while it counts; returns how far it was."""
    with qemu(root, work, processor) as monitor:
        monitor.run("cont")
        wait_until(lambda: len(counts(work)) > 2, "the guest to count")
        monitor.run("stop")
        capability = {"capability": "x-ignore-shared", "state": True}
        monitor.run("migrate-set-capabilities", capabilities=[capability])
        monitor.run("migrate", uri="exec:cat >/mnt/state")
        monitor.wait_for_migration()
        return counts(work)[-1]


def load(root: Path, work: Path, processor: str, last: int) -> None:
    """Load the state, and see that the guest goes on; raises `RuntimeError` if it does not."""
    with qemu(root, work, processor, "-incoming", "defer") as monitor:
        capability = {"capability": "x-ignore-shared", "state": True}
        monitor.run("migrate-set-capabilities", capabilities=[capability])
        monitor.run("migrate-incoming", uri="exec:cat /mnt/state")
        monitor.wait_for_migration()
        monitor.run("cont")
        wait_until(lambda: len(counts(work)) > 1, "the guest to go on")
        if counts(work)[0] != last + 1:
            raise RuntimeError(f"the guest went on at {counts(work)[0]}, not at {last + 1}")


def version(root: Path) -> str:
    command = ["chroot", root, "qemu-system-x86_64", "--version"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"version (\S+)", said)
    assert found
    return found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("roots", nargs="+", type=Path)
    roots = {version(root): root for root in [Path("/"), *parser.parse_args().roots]}
    with tempfile.TemporaryDirectory(prefix="vmsnap-bench-") as name:
        store = Store(platformdirs.user_cache_path("pytest-vmsnap"), progress=Progress(print))
        request = image_request(MachineSpec(image="debian:trixie"), root=Path.cwd())
        built = image.provide(request, store=store, progress=Progress(print))
        initrd = busybox(built, Path(name) / "initrd", {"etc/inittab": COUNTING})
        print(f"| processor | saved by | {' | '.join(f'loaded by {each}' for each in roots)} |")
        print(f"| --- | --- |{' --- |' * len(roots)}")
        for processor, (saver, root) in itertools.product(PROCESSORS, roots.items()):
            work = Path(name) / f"{processor}-{saver}"
            work.mkdir()
            shutil.copy(initrd, work / "initrd")
            shutil.copy(str(built.kernel), work / "kernel")
            last = save(root, work, processor)
            shutil.copy(work / "ram", work / "saved")
            results = []
            for loader in roots.values():
                shutil.copy(work / "saved", work / "ram")
                try:
                    load(loader, work, processor, last)
                    results.append("yes")
                except RuntimeError as error:
                    results.append(f"no: {error}")
            print(f"| {processor} | {saver} | {' | '.join(results)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
