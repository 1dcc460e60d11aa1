"""Which TCP ports are open, as the guest sees it.

On the guest itself by its own tables (Linux, ``Documentation/networking/proc_net_tcp.rst``), which needs no
tool there and no connection that the service would see; elsewhere by a connection.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.model import Result

LISTENING = "0A"
# as the tables write them: each 32-bit word in the host's byte order
ANY = {"00000000", "0" * 32}
LOCAL = ANY | {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
LOCAL_NAMES = {"localhost", "127.0.0.1", "::1"}


def command(port: int, address: str) -> str:
    """A command for the guest's ``sh`` that tells about a port."""
    if address in LOCAL_NAMES:
        return "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null; true"
    place = shlex.quote(address)
    return (
        f"if command -v nc >/dev/null; then nc -z -w 5 {place} {port}; "
        f"elif command -v bash >/dev/null; then timeout 5 bash -c '</dev/tcp/'{place}/{port}; "
        'else echo "neither nc nor bash is in the guest" >&2; exit 2; fi'
    )


def is_open(answer: Result, port: int, address: str) -> bool:
    """What the guest's answer to `command` says."""
    if address in LOCAL_NAMES:
        return any(number == port and host in LOCAL for host, number in _listeners(answer.text))
    return answer.returncode == 0


def listening(answer: Result) -> str:
    """The answer in words, for an error."""
    numbers = sorted({number for _, number in _listeners(answer.text)})
    return f"listening: {', '.join(map(str, numbers)) or 'nobody'}\n{answer.stderr.decode(errors='replace')}"


def _listeners(tables: str) -> Iterator[tuple[str, int]]:
    for line in tables.splitlines():
        columns = line.split()
        if len(columns) > 3 and columns[3] == LISTENING:
            host, _, number = columns[1].partition(":")
            yield host, int(number, 16)
