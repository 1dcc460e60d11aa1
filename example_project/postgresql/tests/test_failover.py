"""What replication promises: which writes survive when machines fail, or no longer reach each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from postgresql import promote, sql

if TYPE_CHECKING:
    from postgresql import Ledger

    from pytest_vmsnap import Cluster

WAITS_FOR_STANDBY = sql("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'") + " | grep 1"


@pytest.mark.vm_state("replicated")
def test_a_write_reaches_the_standby(vm_cluster: Cluster, ledger: Ledger) -> None:
    assert ledger.write(1).wait().returncode == 0
    vm_cluster["standby"].wait_until_succeeds(sql("SELECT entry FROM ledger") + " | grep 1")


@pytest.mark.vm_state("replicated")
def test_a_standby_takes_no_writes(vm_cluster: Cluster) -> None:
    assert "read-only" in vm_cluster["client"].fail(
        sql("INSERT INTO ledger VALUES (1)", host="standby") + " 2>&1"
    )


@pytest.mark.vm_state("synchronous")
def test_no_acknowledged_write_is_lost_when_the_primary_loses_its_power(
    vm_cluster: Cluster, ledger: Ledger
) -> None:
    ledger.keep_writing()
    ledger.wait_for_acknowledged(20)
    vm_cluster["primary"].crash()

    promote(vm_cluster["standby"])
    assert ledger.acknowledged() <= ledger.on("standby")


@pytest.mark.vm_state("replicated")
def test_without_synchronous_replication_an_acknowledged_write_can_be_lost(
    vm_cluster: Cluster, ledger: Ledger
) -> None:
    vm_cluster.network.partition({"primary"}, {"standby"})  # the client reaches both
    assert ledger.write(1).wait().returncode == 0
    vm_cluster["primary"].crash()

    promote(vm_cluster["standby"])
    assert ledger.on("standby") == set()


@pytest.mark.vm_state("synchronous")
def test_a_write_waits_while_the_standby_is_cut_off(vm_cluster: Cluster, ledger: Ledger) -> None:
    with vm_cluster.network.cut("standby"):
        write = ledger.write(1)
        vm_cluster["primary"].wait_until_succeeds(WAITS_FOR_STANDBY)
        assert write.poll() is None
    assert write.wait().returncode == 0
    assert ledger.on("standby") == {1}


@pytest.mark.vm_state("synchronous")
def test_a_primary_that_is_cut_off_acknowledges_nothing_that_the_new_one_lacks(
    vm_cluster: Cluster, ledger: Ledger
) -> None:
    ledger.keep_writing()
    ledger.wait_for_acknowledged(20)
    with vm_cluster.network.partition({"primary"}, {"standby"}):
        vm_cluster["primary"].wait_until_succeeds(WAITS_FOR_STANDBY)
        promote(vm_cluster["standby"])
    assert ledger.acknowledged() <= ledger.on("standby")


@pytest.mark.vm_state("synchronous")
def test_the_standby_is_upgraded_first_and_takes_over(vm_cluster: Cluster, ledger: Ledger) -> None:
    standby = vm_cluster["standby"]
    ledger.keep_writing()

    standby.succeed("dpkg --install /root/upgrade.deb", timeout=120)
    assert standby.succeed("dpkg-query --show postgresql-17").endswith("+upgrade\n")
    ledger.wait_for_acknowledged(20)  # by both, the new version with the old

    vm_cluster["primary"].crash()
    promote(standby)
    assert ledger.acknowledged() <= ledger.on("standby")
    vm_cluster["client"].succeed(sql("INSERT INTO ledger VALUES (-1)", host="standby"))
