"""A real switch, with sockets in the place of machines."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import SwitchGone
from pytest_vmsnap.network import FaultSpec
from pytest_vmsnap.network.process import MOST_QUEUED
from pytest_vmsnap.network.switch import Switch

from .test_pcapng import blocks, options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMES = ("a", "b", "c")
BROADCAST = b"\xff" * 6


def mac(place: int) -> bytes:
    return bytes([0x52, 0x54, 0, 0, 0, place])


def framed(target: bytes, source: bytes, payload: bytes) -> bytes:
    frame = target + source + b"\x08\x00" + payload
    return len(frame).to_bytes(4, "big") + frame


class Port:
    """A machine's end of its connection."""

    def __init__(self, path: Path, place: int) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.socket.settimeout(20)
        self.mac = mac(place)

    def send(self, target: bytes, payload: bytes) -> None:
        self.socket.sendall(framed(target, self.mac, payload))

    def payload(self) -> bytes:
        """What the next frame carries."""
        length = int.from_bytes(self._exactly(4), "big")
        return self._exactly(length)[14:]

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            assert piece, "the switch has closed the connection"
            data += piece
        return data

    def is_silent(self) -> bool:
        """Whether nothing has come; everything sent before has been through the switch."""
        self.socket.setblocking(False)
        try:
            return not self.socket.recv(1)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(20)


@pytest.fixture
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    directory = Path(os.path.relpath(tmp_path_factory.mktemp("s")))
    with Switch(NAMES, directory=directory, name="lan", grant=lambda _: None) as switch:
        yield switch


@pytest.fixture
def ports(switch: Switch) -> Iterator[list[Port]]:
    """Connected, and their addresses learned."""
    found = [Port(switch.path_of(name), place) for place, name in enumerate(NAMES)]
    for port in found:
        port.send(BROADCAST, b"here")
        for other in found:
            if other is not port:
                assert other.payload() == b"here"
    yield found
    for port in found:
        port.socket.close()


def test_a_frame_goes_to_its_target_alone_once_that_is_known(ports: list[Port]) -> None:
    a, b, c = ports
    a.send(b.mac, b"for b")
    assert b.payload() == b"for b"
    b.send(c.mac, b"last")
    assert c.payload() == b"last"
    assert a.is_silent()


def test_an_unknown_target_is_looked_for_everywhere(ports: list[Port]) -> None:
    a, b, c = ports
    a.send(mac(99), b"who")
    assert b.payload() == c.payload() == b"who"


def test_frames_keep_their_order_whatever_the_pieces_they_come_in(ports: list[Port]) -> None:
    a, b, _ = ports
    stream = b"".join(framed(b.mac, a.mac, b"%d" % number * 50) for number in range(300))
    for at in range(0, len(stream), 777):
        a.socket.sendall(stream[at : at + 777])
    assert [b.payload() for _ in range(300)] == [b"%d" % number * 50 for number in range(300)]


def test_a_machine_that_starts_again_connects_anew(switch: Switch, ports: list[Port]) -> None:
    a, b, _ = ports
    b.socket.close()
    again = Port(switch.path_of("b"), 1)
    with again.socket:
        again.send(a.mac, b"back")
        assert a.payload() == b"back"
        a.send(b.mac, b"welcome")
        assert again.payload() == b"welcome"


def test_what_is_no_frame_ends_that_connection_and_no_other(switch: Switch, ports: list[Port]) -> None:
    a, b, c = ports
    a.socket.sendall(b"\xff" * 100)
    assert a.socket.recv(1) == b""
    b.send(c.mac, b"still here")
    assert c.payload() == b"still here"
    assert switch.connected() == {"a": False, "b": True, "c": True}


def test_a_machine_that_does_not_read_holds_up_nobody_and_costs_little(
    switch: Switch, ports: list[Port]
) -> None:
    a, b, c = ports
    for _ in range(40):
        a.socket.sendall(framed(b.mac, a.mac, bytes(60_000)) * 20)
    a.send(c.mac, b"passed")
    assert c.payload() == b"passed"
    resident = int(Path(f"/proc/{switch.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert resident < 6 * MOST_QUEUED


def test_a_partition_and_its_end(switch: Switch, ports: list[Port]) -> None:
    a, b, c = ports
    switch.set_faults([FaultSpec(kind="partition", links=frozenset({(0, 1), (1, 0)}))])
    a.send(b.mac, b"lost")
    a.send(c.mac, b"found")
    assert c.payload() == b"found"
    assert b.is_silent()
    switch.set_faults([])
    a.send(b.mac, b"found again")
    assert b.payload() == b"found again"


def test_a_delay_delays_one_direction_only_where_wanted(switch: Switch, ports: list[Port]) -> None:
    a, b, _ = ports
    switch.set_faults([FaultSpec(kind="delay", links=frozenset({(0, 1)}), seconds=0.5)])
    began = time.monotonic()
    a.send(b.mac, b"late")
    b.send(a.mac, b"early")
    assert a.payload() == b"early"
    assert b.payload() == b"late"
    assert time.monotonic() - began >= 0.5


def test_a_fault_that_goes_on_keeps_its_random_numbers(switch: Switch, ports: list[Port]) -> None:
    a, b, _ = ports
    loss = FaultSpec(kind="loss", links=frozenset({(0, 1)}), fraction=0.5, seed=11)
    found = []
    for _ in range(2):
        switch.set_faults([])
        switch.set_faults([loss])
        for number in range(40):
            a.send(b.mac, b"%d" % number)
            if number == 20:
                switch.set_faults([loss, FaultSpec(kind="cut", links=frozenset({(2, 0)}))])
        switch.set_faults([])
        a.send(b.mac, b"end")
        found.append([*iter(b.payload, b"end")])
    assert found[0] == found[1]
    assert 8 < len(found[0]) < 32


def test_a_capture_has_each_frame_once_and_says_what_was_dropped(
    switch: Switch, ports: list[Port], tmp_path: Path
) -> None:
    a, b, c = ports
    switch.begin_capture(tmp_path / "capture")
    a.send(b.mac, bytes(50))
    assert b.payload() == bytes(50)
    switch.set_faults([FaultSpec(kind="cut", links=frozenset({(0, 1)}))])
    a.send(b.mac, bytes(60))
    a.send(c.mac, b"end")
    assert c.payload() == b"end"
    assert switch.end_capture(tmp_path / "capture")
    packets = [body for kind, body in blocks((tmp_path / "capture").read_bytes()) if kind == 6]
    assert [int.from_bytes(body[12:16], "little") for body in packets] == [64, 74, 17]
    assert options(packets[1][20 + 76 :]) == {1: b"dropped: cut"}


def test_a_capture_that_cannot_be_written_says_so(switch: Switch, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        switch.begin_capture(tmp_path / "nowhere" / "capture")


def test_the_last_frames_can_be_had_afterwards(switch: Switch, ports: list[Port], tmp_path: Path) -> None:
    a, b, _ = ports
    a.send(b.mac, b"one")
    assert b.payload() == b"one"
    switch.save_trace(tmp_path / "trace")
    packets = [body for kind, body in blocks((tmp_path / "trace").read_bytes()) if kind == 6]
    assert len(packets) == 4  # and the three that the ports said hello with
    assert packets[-1][34:37] == b"one"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_switch_that_was_killed_is_an_error_that_says_so(switch: Switch, number: signal.Signals) -> None:
    os.kill(switch.pid, number)
    os.waitid(os.P_PID, switch.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(SwitchGone, match=f"process {switch.pid}.* has ended with status -{number}"):
        switch.expect_running()
    with pytest.raises(SwitchGone):
        switch.set_faults([])


def test_it_ends_with_its_sockets(switch: Switch, ports: list[Port]) -> None:
    paths = [switch.path_of(name) for name in NAMES]
    switch.close()
    switch.close()
    assert not any(path.exists() for path in paths)
    assert not Path(f"/proc/{switch.pid}").exists()
    assert ports[0].socket.recv(1) == b""


def test_it_ends_with_the_process_that_began_it(
    tmp_path_factory: pytest.TempPathFactory, wait_until: Callable[..., None]
) -> None:
    read, write = os.pipe()
    if not (child := os.fork()):
        switch = Switch(NAMES, directory=tmp_path_factory.mktemp("s"), name="lan", grant=lambda _: None)
        os.write(write, str(switch.pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    pid = int(os.read(read, 20))
    wait_until(lambda: _is_gone(pid))
    os.close(read)
    os.close(write)


@pytest.fixture
def wait_until() -> Callable[..., None]:
    def wait(condition: Callable[[], bool], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    return wait


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
