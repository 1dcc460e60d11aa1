"""A process that ends a run's QEMUs if the run dies, even from SIGKILL.

Without a daemon (``qemu:///embed``) nothing else does: libvirt's driver lives in the run's own process.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.host.processes import end_qemus

if TYPE_CHECKING:
    from pytest_vmsnap.host.run_directory import Run

FAREWELL = b"."
PATIENCE_SECONDS = 2.0  # a QEMU that was starting when the run died appears within this time

_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from pytest_vmsnap.host.watchdog import main; main()"


class Watchdog:
    """Watch over the `run` of this process until `close`."""

    def __init__(self, run: Run) -> None:
        package = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-c", _PROGRAM, str(package)),
                *(str(os.getpid()), run.prefix, str(run.sockets), str(run.data)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C at the terminal must not reach it
        )

    def close(self) -> None:
        """Tell the process that the run ended normally, and wait until it exits."""
        if self._process.stdin and not self._process.stdin.closed:
            try:
                self._process.stdin.write(FAREWELL)
                self._process.stdin.close()
            except BrokenPipeError:  # it was killed; the run cleans up by itself
                pass
        self._process.wait()


def main() -> None:
    """Wait for the run's end, then clean up unless it said farewell. This is the watchdog process."""
    pid, prefix, sockets, data = int(sys.argv[2]), *sys.argv[3:6]
    if _wait_for_end(pid):
        return
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        end_qemus(prefix)
        select.select([], [], [], 0.05)
    shutil.rmtree(sockets, ignore_errors=True)
    shutil.rmtree(data, ignore_errors=True)
    lock = Path(data).with_suffix(".lock")
    lock.unlink(missing_ok=True)


def _wait_for_end(pid: int) -> bool:
    """Block until the run has ended; return True if it said farewell.

    Watch the process in addition to the pipe: a child that it forked may hold the pipe open.
    """
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    ready, _, _ = select.select([sys.stdin.buffer, process], [], [])
    return sys.stdin.buffer in ready and sys.stdin.buffer.read(1) == FAREWELL


if __name__ == "__main__":
    main()
