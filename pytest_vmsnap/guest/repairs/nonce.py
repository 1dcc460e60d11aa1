"""Proof that a machine was nobody's before (``vmsnap_verify=nonce``)."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import RepairFailed
from pytest_vmsnap.guest.channel import Request

if TYPE_CHECKING:
    from pytest_vmsnap.guest.channel import Channel

# memory first, then disk; where the root is in memory, all of it is
PLACES = ("/dev/shm", "/run", "/var/tmp", "/root", "/")  # noqa: S108 - of the guest
NAME = ".vmsnap-nonce"
LOOK = "for place in @places@; do [ ! -e $place/@name@ ] || cat $place/@name@; done"
LEAVE = """
left=
for place in @places@; do
  if [ -d $place ] && echo @nonce@ >$place/@name@; then left=yes; sync $place/@name@ || sync; fi
done
[ "$left" ]
"""


def expect_clean(channel: Channel, name: str, *, timeout: float, saved: str = "") -> str:
    """Prove that no nonce is in the guest's memory or on its disk but `saved`, and leave a new one of `name`'s
    there.

    Returns the new one. Raises `RepairFailed` with the name of the machine whose nonce was found, or where none
    can be left.
    """
    found = channel.run(Request(text=_filled(LOOK)), timeout=timeout)
    nonces = set(found.stdout.decode(errors="replace").split())
    if found.status or nonces != ({saved} if saved else set()):
        owner = next(iter(nonces - {saved}), "unknown")
        raise RepairFailed(f"{name} is not clean: the nonce of another machine is in it ({owner})")
    nonce = f"{name}:{secrets.token_hex(16)}"
    done = channel.run(Request(text=_filled(LEAVE).replace("@nonce@", nonce)), timeout=timeout)
    if done.status or done.timed_out:
        raise RepairFailed(f"no nonce can be left in {name}: {done.stderr.decode(errors='replace').strip()}")
    return nonce


def _filled(script: str) -> str:
    return script.replace("@places@", " ".join(PLACES)).replace("@name@", NAME)
