"""The modules of the user's own kernel, which are a disk of the machine: the guest mounts them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import BootError
from pytest_vmsnap.guest.channel import Request
from pytest_vmsnap.model import MODULES_LABEL

if TYPE_CHECKING:
    from pytest_vmsnap.guest.channel import Channel

# $1: the kernel's release. An initrd of the plugin has mounted them already. Status 90: another kernel runs.
MOUNT = f"""
place=/lib/modules/$1
uname -r
[ "$(uname -r)" = "$1" ] || exit 90
[ ! -e "$place/modules.dep" ] || exit 0
mkdir -p "$place" || exit
for disk in /sys/block/vd*; do
  [ "$(cat "$disk/serial" 2>/dev/null)" = {MODULES_LABEL} ] || continue
  mount -t ext4 -o ro "/dev/${{disk##*/}}" "$place" || exit
  echo "LABEL={MODULES_LABEL} $place ext4 ro,nofail 0 0" >>/etc/fstab
  exit
done
echo "no disk has the serial number {MODULES_LABEL}" >&2
exit 1
"""
OTHER_KERNEL = 90


def mount_modules(channel: Channel, release: str, *, timeout: float) -> None:
    """Mount the modules of the kernel `release`, now and at each boot, unless they are.

    Raises `BootError` if another kernel runs, or they cannot be mounted.
    """
    done = channel.run(Request(text=f"sh -c {shlex.quote(MOUNT)} sh {shlex.quote(release)}"), timeout=timeout)
    if done.status == OTHER_KERNEL:
        running = done.stdout.decode(errors="replace").strip()
        raise BootError(
            f"the kernel that runs is {running}, but vmsnap_modules has the modules of {release}",
            hint="set vmsnap_kernel and vmsnap_modules to the results of one build",
        )
    if done.status:
        words = done.stderr.decode(errors="replace").strip()
        raise BootError(f"the modules of the kernel {release} cannot be mounted: {words}")
