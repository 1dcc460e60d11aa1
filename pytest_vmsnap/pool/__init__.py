"""Which test gets which clone: hand-over, standbys, discarding."""

from pytest_vmsnap.pool.allocation import Allocation, Savepoint
from pytest_vmsnap.pool.budget import Budget, HostBudget, OwnBudget
from pytest_vmsnap.pool.lease import Lease, Provisioner
from pytest_vmsnap.pool.pool import Pool

__all__ = ["Pool", "Budget", "HostBudget", "OwnBudget", "Lease", "Provisioner", "Allocation", "Savepoint"]
