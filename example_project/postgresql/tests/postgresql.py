"""What the tests do with PostgreSQL: Debian's, of the version that its release 13 has."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vmsnap import Cluster, Machine
    from pytest_vmsnap.machine.process import Process

SERVICE = "postgresql@17-main"
DATA = "/var/lib/postgresql/17/main"
HBA = "/etc/postgresql/17/main/pg_hba.conf"
PSQL = "psql --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 --username=postgres"

# One connection that writes entry after entry; a line for each that the primary has acknowledged.
WRITE = f"""
for entry in $(seq 100000); do echo "INSERT INTO ledger VALUES ($entry) RETURNING entry;"; sleep 0.01; done |
    {PSQL} --host=primary >/root/acknowledged
"""


def sql(statement: str, *, host: str = "") -> str:
    """The command that runs `statement`, on this machine or on `host`."""
    if host:
        return f"{PSQL} --host={host} --command={shlex.quote(statement)}"
    return f"runuser -u postgres -- {PSQL} --command={shlex.quote(statement)}"


def promote(machine: Machine) -> None:
    """Make a standby the primary."""
    machine.succeed("pg_ctlcluster 17 main promote")
    machine.wait_until_succeeds(sql("SELECT pg_is_in_recovery()") + " | grep f")


class Ledger:
    """A table of numbers on the primary, which the client writes to."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._client = cluster["client"]

    def write(self, entry: int) -> Process:
        """Begin to write one entry; the process ends when it is acknowledged."""
        return self._client.popen(sql(f"INSERT INTO ledger VALUES ({entry})", host="primary"))

    def keep_writing(self) -> None:
        """Write entry after entry from now on, until the primary no longer answers."""
        self._client.popen(WRITE)
        self.wait_for_acknowledged(1)

    def wait_for_acknowledged(self, further: int) -> None:
        """Wait until so many `further` entries are acknowledged."""
        wanted = len(self.acknowledged()) + further
        self._client.wait_until_succeeds(f"[ $(wc -l </root/acknowledged) -ge {wanted} ]")

    def acknowledged(self) -> set[int]:
        """The entries that the primary has acknowledged."""
        return {int(line) for line in self._client.run("cat /root/acknowledged").stdout.split()}

    def on(self, name: str) -> set[int]:
        """The entries that the machine `name` has."""
        return {int(line) for line in self._cluster[name].succeed(sql("SELECT entry FROM ledger")).split()}
