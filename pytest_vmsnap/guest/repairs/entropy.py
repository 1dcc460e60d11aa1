"""Random numbers: two clones of one snapshot would draw the same.

A kernel with the driver ``vmgenid`` reseeds by itself when it sees a new VM generation ID (Linux 5.18; libvirt,
"Domain XML", ``genid``). For other kernels, bytes from the host are mixed in and credited, and the generator is
told to use them at once (random(4), ``RNDADDENTROPY`` and ``RNDRESEEDCRNG``): a plain write to ``/dev/urandom``
does neither.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import RepairFailed
from pytest_vmsnap.guest.channel import Request

if TYPE_CHECKING:
    from pytest_vmsnap.guest.channel import Channel
    from pytest_vmsnap.model import Reseeder

SEED_BYTES = 64

# a driver's directory has a link for each device that it is bound to (sysfs(5))
SURVEY = """
for driver in /sys/bus/*/drivers/vmgenid; do
  for device in "$driver"/*; do
    case ${device##*/} in
      bind | unbind | uevent | module | '*') ;;
      *) echo kernel; exit ;;
    esac
  done
done
for program in perl python3; do
  command -v "$program" >/dev/null && echo "$program" && exit
done
echo nothing
"""
RESEED = {
    "perl": """perl -e '
        open(my $random, "<", "/dev/random") or die "/dev/random: $!";
        read(STDIN, my $seed, 64) == 64 or die "no seed";
        ioctl($random, 0x40085203, pack("iia*", 512, 64, $seed)) or die "RNDADDENTROPY: $!";
        ioctl($random, 0x5207, 0) or die "RNDRESEEDCRNG: $!";'""",
    "python3": """python3 -c '
import fcntl, struct, sys
seed = sys.stdin.buffer.read(64)
with open("/dev/random", "rb") as random:
    fcntl.ioctl(random, 0x40085203, struct.pack("ii", 512, 64) + seed)
    fcntl.ioctl(random, 0x5207)'""",
}


def reseeder_of(channel: Channel, *, timeout: float) -> Reseeder:
    """Return what can give the guest's clones their own random numbers; call it before the guest is saved."""
    found = channel.run(Request(text=SURVEY), timeout=timeout).stdout.decode().strip()
    return "kernel" if found == "kernel" else found if found in RESEED else "nothing"  # type: ignore[return-value]


def reseed(channel: Channel, reseeder: Reseeder, *, timeout: float) -> None:
    """Give the guest its own random numbers, unless its kernel does so itself or nothing in it can.

    Raises `RepairFailed` with the guest's error if that fails.
    """
    if reseeder not in RESEED:
        return
    done = channel.run(Request(text=RESEED[reseeder], input=os.urandom(SEED_BYTES)), timeout=timeout)
    if done.status or done.timed_out:
        words = "it took too long" if done.timed_out else done.stderr.decode(errors="replace").strip()
        raise RepairFailed(f"the random number generator could not be reseeded: {words}")
