"""The state of a service of the guest's init, if that is not systemd, and what to do if there is none.

Sources: OpenRC's rc-service(8) and openrc-run(8); runit's sv(8); for sysvinit, Linux Standard Base, "Init
Script Actions".
"""

from __future__ import annotations

import difflib
import shlex
from dataclasses import dataclass
from typing import Literal

Init = Literal["openrc", "runit", "sysvinit", "none"]
State = Literal["active", "inactive", "failed", "unknown"]
MOST_NAMES = 3
OPENRC_CRASHED = 32

# $1: the service. Prints the init and a status, then what the service says itself, or all services.
QUESTION = """
if [ -d /run/openrc ] && command -v rc-service >/dev/null; then
  if ! rc-service -e "$1"; then echo openrc unknown; rc-service -l; exit; fi
  said=$(rc-service "$1" status 2>&1)
  echo "openrc $?"
  echo "$said"
  exit
fi
for place in /etc/service /var/service /etc/runit/runsvdir/default /service; do
  if [ -d "$place" ] && command -v sv >/dev/null; then
    if [ ! -d "$place/$1" ]; then echo runit unknown; ls "$place"; exit; fi
    said=$(sv status "$place/$1" 2>&1)
    echo "runit $?"
    echo "$said"
    exit
  fi
done
if [ ! -d /etc/init.d ] || [ -z "$(ls /etc/init.d)" ]; then echo none 0; cat /proc/1/comm; exit; fi
if [ ! -x "/etc/init.d/$1" ]; then echo sysvinit unknown; ls /etc/init.d; exit; fi
said=$("/etc/init.d/$1" status 2>&1)
echo "sysvinit $?"
echo "$said"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """A service's `state` according to the guest's `init`; `words` is what the service or the init says."""

    init: Init
    state: State
    words: str = ""


def question(service: str) -> str:
    """The command that asks for the state of `service`."""
    return f"sh -c {shlex.quote(QUESTION)} sh {shlex.quote(service)}"


def parsed(text: str) -> ServiceState:
    """Parse what the command of `question` has printed."""
    first, _, words = text.partition("\n")
    init, _, status = first.partition(" ")
    return ServiceState(init=init, state=_state(init, status, words), words=words.strip())  # type: ignore[arg-type]


def _state(init: str, status: str, words: str) -> State:
    if status == "unknown":
        return "unknown"
    if init == "runit":
        return "active" if words.startswith("run:") else "inactive"
    if init == "openrc" and status == str(OPENRC_CRASHED):
        return "failed"
    return "active" if status == "0" else "inactive"


def unknown_reason(service: str, found: ServiceState) -> str:
    """What is wrong with a service that can never be active, and what to do; empty if it can."""
    if found.init == "none":
        return (
            f"the guest's init ({found.words or 'unknown'}) has no services\n"
            "use another wait, such as vm.wait_until_succeeds('pidof NAME') or vm.wait_for_open_port(PORT)"
        )
    if found.state == "failed":
        return f"the service {service} has crashed: {found.words}"
    if found.state != "unknown":
        return ""
    near = difflib.get_close_matches(service, found.words.split(), n=MOST_NAMES)
    advice = f"did you mean: {', '.join(near)}?" if near else "no service has a similar name"
    return f"{found.init} does not know the service {service}\n{advice}"
