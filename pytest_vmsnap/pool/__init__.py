"""Who gets which clone: hand-over, standby, discarding."""

from pytest_vmsnap.pool.lease import Lease, Maker
from pytest_vmsnap.pool.pool import Pool

__all__ = ["Pool", "Lease", "Maker"]
