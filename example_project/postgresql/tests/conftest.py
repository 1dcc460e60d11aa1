"""A PostgreSQL primary, a standby that streams from it, and a client, saved as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from postgresql import DATA, HBA, SERVICE, Ledger, sql

from pytest_vmsnap import state

if TYPE_CHECKING:
    from pytest_vmsnap import Cluster, Machine

# Packs the installed package anew as the next version: a whole upgrade, with its scripts, and without a mirror.
PACK_UPGRADE = r"""
set -e
mkdir -p /root/upgrade/DEBIAN
cd /
sed 's,^/,,' /var/lib/dpkg/info/postgresql-17.list | while read -r path; do
    if [ -e "$path" ]; then echo "$path"; fi
done | tar --create --no-recursion --files-from=- | tar --extract --directory=/root/upgrade
for script in preinst postinst prerm postrm; do
    cp /var/lib/dpkg/info/postgresql-17.$script /root/upgrade/DEBIAN/$script
done
dpkg-query --status postgresql-17 | sed '/^Status:/d; s/^Version: .*/&+upgrade/' >/root/upgrade/DEBIAN/control
dpkg-deb --build -Znone /root/upgrade /root/upgrade.deb
rm -r /root/upgrade
"""


@state
def database(vm: Machine) -> None:
    """A database server that other machines may use and copy."""
    vm.wait_for_unit(SERVICE)
    vm.succeed(
        sql("ALTER SYSTEM SET listen_addresses = '*'"),
        f"echo 'host all,replication all samenet trust' >>{HBA}",
        f"systemctl restart {SERVICE}",
        PACK_UPGRADE,
    )


@state(machines={"primary": {"state": database}, "standby": {"state": database}, "client": {}})
def replicated(vm_cluster: Cluster) -> None:
    """The standby streams from the primary, which has an empty ledger; it does not wait for the standby."""
    primary, standby = vm_cluster["primary"], vm_cluster["standby"]
    primary.succeed(sql("CREATE TABLE ledger (entry int PRIMARY KEY)"))
    standby.succeed(
        f"systemctl stop {SERVICE}",
        f"rm -r {DATA}",
        "runuser -u postgres -- pg_basebackup --host=primary --checkpoint=fast --create-slot --slot=standby"
        f" --write-recovery-conf --pgdata={DATA}",
        f"systemctl start {SERVICE}",
    )
    primary.wait_until_succeeds(sql("SELECT state FROM pg_stat_replication") + " | grep streaming")


@state(parent=replicated)
def synchronous(vm_cluster: Cluster) -> None:
    """The primary acknowledges a write only when the standby has it on its disk."""
    primary = vm_cluster["primary"]
    primary.succeed(sql("ALTER SYSTEM SET synchronous_standby_names = '*'"), sql("SELECT pg_reload_conf()"))
    primary.wait_until_succeeds(sql("SELECT sync_state FROM pg_stat_replication") + " | grep sync$")


@pytest.fixture
def ledger(vm_cluster: Cluster) -> Ledger:
    """The ledger, which the client writes to on the primary."""
    return Ledger(vm_cluster)
