"""The switch of a cluster, as the run sees it: its process, its sockets, its faults and captures."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pytest_vmsnap.errors import SwitchGone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_vmsnap.network.faults import FaultSpec

ANSWER_SECONDS = 30.0
END_SECONDS = 5.0
BACKLOG = 4

# The package is not imported: its `__init__` imports libvirt, and a switch is to be there in milliseconds.
_PROGRAM = """
import sys, types
package = types.ModuleType("pytest_vmsnap")
package.__path__ = [sys.argv.pop(1)]
sys.modules["pytest_vmsnap"] = package
from pytest_vmsnap.network.process import main
main()
"""


class Switch:
    """A learning switch between `machines`, each of which QEMU connects to at a socket of its own.

    The sockets are in `directory`, their names begin with `name`; `grant` lets QEMU's user connect to one. The
    process ends with `close`, and with the run, however that ends. Raises `OSError` if it cannot be started.
    """

    def __init__(
        self, machines: Sequence[str], *, directory: Path, name: str, grant: Callable[[Path], object]
    ) -> None:
        self.machines = tuple(machines)
        self._lock = threading.Lock()
        self._faults: list[FaultSpec] = []
        self._paths = {machine: directory / f"{name}.{place}" for place, machine in enumerate(machines)}
        self._received = b""
        with ExitStack() as stack:
            listeners = [stack.enter_context(_listener(path)) for path in self._paths.values()]
            for path in self._paths.values():
                grant(path)
            self._control, theirs = socket.socketpair()
            stack.enter_context(theirs)
            descriptors = [theirs.fileno(), *(listener.fileno() for listener in listeners)]
            arguments = [str(theirs.fileno())]
            for machine, listener in zip(machines, listeners, strict=True):
                arguments += [machine, str(listener.fileno())]
            package = Path(__file__).parents[1]
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, str(package), *arguments],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C at the terminal is not for it
            )
        self._control.settimeout(ANSWER_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def path_of(self, machine: str) -> Path:
        """The socket that the QEMU of `machine` connects to."""
        return self._paths[machine]

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def expect_running(self) -> None:
        """Raise `SwitchGone` if the process has ended."""
        if (status := self._process.poll()) is not None:
            raise SwitchGone(
                f"the switch of the cluster's private network (process {self.pid}) has ended with status "
                f"{status}: its machines do not reach each other",
                hint="revert the cluster, or take another: each has a switch of its own",
            )

    @property
    def faults(self) -> tuple[FaultSpec, ...]:
        """The faults at work, in the order in which they began."""
        return tuple(self._faults)

    def set_faults(self, faults: Sequence[FaultSpec]) -> None:
        """Have exactly these faults; those that go on keep their random numbers. Raises `SwitchGone`."""
        self._ask("faults", faults=[fault.as_dict() for fault in faults])
        self._faults = list(faults)

    def begin_capture(self, path: Path) -> None:
        """Write all frames to `path` from now on, as pcapng. Raises `OSError`, `SwitchGone`."""
        self._ask("capture", path=str(path))

    def end_capture(self, path: Path) -> bool:
        """End a capture; returns false if it broke off, since there was no space. Raises `SwitchGone`."""
        return bool(self._ask("stop", path=str(path)))

    def save_trace(self, path: Path) -> None:
        """Write the last frames to `path`, as pcapng: at most 4 MiB. Raises `OSError`, `SwitchGone`."""
        self._ask("save_trace", path=str(path))

    def connected(self) -> dict[str, bool]:
        """Which machines are connected now. Raises `SwitchGone`."""
        return dict(zip(self.machines, self._ask("connected"), strict=True))

    def close(self) -> None:
        """End the process and remove the sockets; nothing happens the second time."""
        self._control.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:  # it is stopped, or hangs
            self._process.kill()
            self._process.wait()
        for path in self._paths.values():
            path.unlink(missing_ok=True)

    def _ask(self, what: str, **parameters: Any) -> Any:
        with self._lock:
            self.expect_running()
            try:
                self._control.sendall(json.dumps({"do": what, **parameters}).encode() + b"\n")
                reply = self._line()
            except OSError as error:
                self._process.kill()
                self._process.wait()
                raise SwitchGone(
                    f"the switch of the cluster's network (process {self.pid}) does not answer: {error}",
                    hint="revert the cluster, or take another: each has a switch of its own",
                ) from error
        answer = json.loads(reply)
        if "error" in answer:
            raise OSError(answer["error"])
        return answer["answer"]

    def _line(self) -> bytes:
        while b"\n" not in self._received:
            data = self._control.recv(1 << 16)
            if not data:
                raise ConnectionError("it has ended")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line


def _listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
