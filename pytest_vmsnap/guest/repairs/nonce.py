"""Proof that no test had a machine before (``vmsnap_verify=nonce``)."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import RepairFailed
from pytest_vmsnap.guest.channel import Request

if TYPE_CHECKING:
    from pytest_vmsnap.guest.channel import Channel

# memory first, then disk; if the root is in memory, all of them are
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
    """Prove that the guest's memory and disk have no nonce but `saved`, and leave a new one for `name` there.

    Returns the new nonce. Raises `RepairFailed` with the name of the machine whose nonce was found, or if none
    can be left.
    """
    found = channel.run(Request(text=_filled(LOOK)), timeout=timeout)
    nonces = set(found.stdout.decode(errors="replace").split())
    if found.status or nonces != ({saved} if saved else set()):
        owner = next(iter(nonces - {saved}), "unknown")
        raise RepairFailed(f"{name} is not clean: it contains the nonce of another machine ({owner})")
    nonce = f"{name}:{secrets.token_hex(16)}"
    done = channel.run(Request(text=_filled(LEAVE).replace("@nonce@", nonce)), timeout=timeout)
    if done.status or done.timed_out:
        raise RepairFailed(f"cannot write a nonce in {name}: {done.stderr.decode(errors='replace').strip()}")
    return nonce


def _filled(script: str) -> str:
    return script.replace("@places@", " ".join(PLACES)).replace("@name@", NAME)
