"""What goes between two guests: through the switch, and by QEMU's own `-netdev socket` between the two.

The guests are two plain QEMUs with busybox alone, the same in both: what differs is the netdev.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.host import LanPort
from pytest_vmsnap.network.switch import Switch
from tests.guest.images import CMDLINE, busybox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vmsnap.model import Image

SECONDS = 600.0
SENDING = 8  # seconds; what is on its way then is still received
MACS = ("52:54:00:00:00:01", "52:54:00:00:00:02")

SERVER = "ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up; while :; do nc -l -p 7 >/dev/null; done"
CLIENT = f"""\
ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up
until ping -c 1 -W 1 10.0.0.1 >/dev/null; do :; done
sleep 3
ping -c 100 -i 0.1 -q 10.0.0.1 | grep min/avg
now() {{ cut -d. -f1 /proc/uptime; }}
for turn in 1 2 3 4 5; do
    : >/tmp/sent
    start=$(cut -d' ' -f1 /proc/uptime) end=$(($(now) + {SENDING}))
    while [ $(now) -lt $end ]; do
        dd if=/dev/zero bs=64k count=16 2>/dev/null || break
        echo >>/tmp/sent
    done | nc 10.0.0.1 7
    echo "sent $(wc -l </tmp/sent) $start $(cut -d' ' -f1 /proc/uptime)"
    sleep 1
done
echo END; poweroff -f
"""


class Link:
    """Two guests, and what the second says of its way to the first."""

    def __init__(self, image: Image, directory: Path) -> None:
        self._image = image
        self._initrds = [
            busybox(
                image,
                directory / name,
                {"etc/inittab": f"::once:/bin/sh /{name} >/dev/ttyS0 2>&1\n", name: text},
            )
            for name, text in (("server", SERVER), ("client", CLIENT))
        ]

    def measure(self, netdevs: Sequence[str]) -> tuple[list[float], float]:
        """MiB per second of each transfer, and the mean round trip in milliseconds, over these netdevs."""
        with ExitStack() as stack:
            server = self._start(0, netdevs[0], subprocess.DEVNULL)
            stack.callback(server.wait)
            stack.callback(server.kill)
            client = self._start(1, netdevs[1], subprocess.PIPE)
            stack.callback(client.kill)
            said = client.communicate(timeout=SECONDS)[0]
        sent = re.findall(r"sent (\d+) ([\d.]+) ([\d.]+)", said)
        trip = re.search(r"min/avg/max = [\d.]+/([\d.]+)/", said)
        assert len(sent) == 5, said[-2000:]
        assert trip, said[-2000:]
        return [int(mib) / (float(end) - float(start)) for mib, start, end in sent], float(trip[1])

    def _start(self, place: int, netdev: str, stdout: int) -> subprocess.Popen[str]:
        command = ["qemu-system-x86_64", "-accel", "tcg", "-m", "256", "-nodefaults", "-display", "none"]
        command += ["-no-reboot", "-serial", "stdio", "-kernel", str(self._image.kernel)]
        command += ["-initrd", str(self._initrds[place]), "-append", CMDLINE, "-netdev", netdev]
        command += ["-device", f"virtio-net-pci,netdev=lan,mac={MACS[place]},romfile="]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, text=True)


def compare(image: Image, rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """For the switch and for `-netdev socket`: MiB per second of all transfers, and round trips, in turns."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        link = Link(image, directory)
        for number in range(rounds):
            names = ("a", "b")
            with Switch(names, directory=directory, name=f"s{number}", grant=lambda _path: None) as switch:
                through = [
                    json.dumps(LanPort(socket=switch.path_of(name), mac=mac).netdev | {"id": "lan"})
                    for name, mac in zip(names, MACS, strict=True)
                ]
                _note(found, "the switch", link.measure(through))
            port = 20000 + number
            direct = [f"socket,id=lan,{way}=127.0.0.1:{port}" for way in ("listen", "connect")]
            _note(found, "-netdev socket", link.measure(direct))
    return found


def _note(
    found: dict[str, tuple[list[float], list[float]]], name: str, measured: tuple[list[float], float]
) -> None:
    rates, trips = found.setdefault(name, ([], []))
    rates += measured[0]
    trips.append(measured[1])
