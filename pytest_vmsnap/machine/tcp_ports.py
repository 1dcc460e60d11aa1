"""Whether a TCP port is open, as seen from the guest.

For the guest's own ports, this reads its tables (Linux, ``Documentation/networking/proc_net_tcp.rst``), which
needs no tool there and no connection that the service would see. For other addresses, it connects.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.model import Result

LISTENING = "0A"
NO_TOOL = 125  # the status of `command` if the guest has nothing to connect with
# addresses as the tables show them: each 32-bit word in host byte order
ANY = {"00000000", "0" * 32}
LOCAL = ANY | {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
LOCAL_NAMES = {"localhost", "127.0.0.1", "::1"}


def command(port: int, address: str) -> str:
    """Return a command for the guest's ``sh`` that shows whether a port is open."""
    if address in LOCAL_NAMES:
        return "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null; true"
    place = shlex.quote(address)
    return (
        f"if command -v nc >/dev/null; then nc -z -w 5 {place} {port}; "
        f"elif command -v bash >/dev/null; then timeout 5 bash -c '</dev/tcp/'{place}/{port}; "
        f'else echo "the guest has neither nc nor bash, and one is needed to test a port" >&2; '
        f"exit {NO_TOOL}; fi"
    )


def is_open(answer: Result, port: int, address: str) -> bool:
    """Return whether the port is open, from the guest's answer to `command`."""
    if address in LOCAL_NAMES:
        return any(number == port and host in LOCAL for host, number in _listeners(answer.text))
    return answer.returncode == 0


def describe(answer: Result, address: str) -> str:
    """Return the guest's answer to `command` in words, for an error."""
    if address not in LOCAL_NAMES:
        said = answer.stderr.decode(errors="replace") or "no message\n"
        return f"the last connection to {address} from the guest: status {answer.returncode}, {said}"
    listeners = list(_listeners(answer.text))
    local = {number for host, number in listeners if host in LOCAL}
    numbers = sorted({number for _, number in listeners})
    words = [f"{number}" if number in local else f"{number} (not on localhost)" for number in numbers]
    return f"the guest's listening ports: {', '.join(words) or 'none'}\n"


def _listeners(tables: str) -> Iterator[tuple[str, int]]:
    for line in tables.splitlines():
        columns = line.split()
        if len(columns) > 3 and columns[3] == LISTENING:
            host, _, number = columns[1].partition(":")
            yield host, int(number, 16)
