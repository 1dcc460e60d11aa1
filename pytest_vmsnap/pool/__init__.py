"""Which test gets which clone: hand-over, standbys, discarding."""

from pytest_vmsnap.pool.allocation import Allocation, Savepoint
from pytest_vmsnap.pool.budget import Budget, HostBudget, OwnBudget, expect_memory
from pytest_vmsnap.pool.cluster_lease import ClusterLease, for_each
from pytest_vmsnap.pool.lease import Lease, Provisioner
from pytest_vmsnap.pool.pool import Pool

__all__ = [
    "Pool",
    "Budget",
    "HostBudget",
    "OwnBudget",
    "expect_memory",
    "Lease",
    "ClusterLease",
    "for_each",
    "Provisioner",
    "Allocation",
    "Savepoint",
]
