"""Who gets which clone: hand-over and discarding."""

from pytest_vmsnap.pool.pool import Lease, Pool

__all__ = ["Pool", "Lease"]
