"""Who gets which clone: hand-over, standby, discarding."""

from pytest_vmsnap.pool.budget import Budget, HostBudget, OwnBudget
from pytest_vmsnap.pool.lease import Lease, Maker
from pytest_vmsnap.pool.pool import Pool
from pytest_vmsnap.pool.tenancy import Moment, Tenancy

__all__ = ["Pool", "Budget", "HostBudget", "OwnBudget", "Lease", "Maker", "Tenancy", "Moment"]
